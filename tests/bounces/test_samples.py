"""The bounces that flufl.bounce was made with: what it finds we find.

They stay where `make peers` puts them: it is mail of real people, which we do not hand on.
"""

from email import message_from_bytes

from flufl.bounce import all_failures

from postroom.bounces.recognise import recognise
from postroom.lists.roster import same_address
from tests.peers import unpacked


def test_whoever_is_found_is_found_by_us() -> None:
    samples = sorted((unpacked("flufl.bounce") / "tests/data").glob("*.txt"))
    known = 0
    for sample in samples:
        raw = sample.read_bytes()
        temporary, permanent = all_failures(message_from_bytes(raw))
        wanted = {same_address(each.decode()) for each in temporary | permanent} - {""}
        found = {each.email: each.final for each in recognise(raw, "").failures}
        assert wanted == found.keys(), sample.name
        passing = {same_address(each.decode()) for each in temporary - permanent}
        assert not any(found[each] for each in passing), f"{sample.name}: it may pass"
        known += bool(wanted)
    assert known >= 110
