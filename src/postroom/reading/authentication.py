"""What our own mail server found out about who sent a message (RFC 8601).

For: not believing a From that is proven false. Guarantees: linear work, nothing is raised; only
fields of one authserv-id count, that of our server, which takes out those that came from outside
(RFC 8601 5). Where it said different things of DMARC, that it failed wins.

Whose domain it is that passed is decided without a list of public suffixes: it is the author's if
the two are equal or one is below the other, and the shorter one has two labels at least.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from postroom.lists.endpoint import host_of
from postroom.mail.address import fold
from postroom.mail.fields import Field
from postroom.reading.post import Post

LONGEST = 255  # octets of a domain (RFC 5321 4.5.3.1.2)

Verdict = Literal["pass", "fail", "none"]

_TOKEN = re.compile(r'\\.|[()";]|\s+|[^\\()";\s]+|\\', re.DOTALL)
_AROUND = re.compile(r" ?([=./]) ?")
_BREAKS = re.compile(r"[\s=;]")
_FAILED = ("fail", "softfail", "hardfail")


class _Result(NamedTuple):
    """What one method found: "dkim", "pass", and of what, as ("header.d", "example.org")."""

    method: str
    result: str
    properties: dict[str, str]


def verdict(post: Post, server: str) -> Verdict:
    """Whether the message is from the domain of its only author, as `server` says, whose
    authserv-id that is. DMARC decides, if there is such a result. Else it is "pass" if DKIM or
    SPF passed for that domain, and "fail" if SPF failed. What says nothing is "none"."""
    results = _results(post, server)
    domain = _domain(post.authors[0]) if len(post.authors) == 1 else ""
    dmarc = [each for each in results if each.method == "dmarc"]
    if any(each.result == "fail" for each in dmarc):
        return "fail"
    if any(each.result == "pass" and _dmarc_of(each, domain) for each in dmarc):
        return "pass"
    if any(each.result == "pass" and _aligned(_passed(each), domain) for each in results):
        return "pass"
    failed = any(each.method == "spf" and each.result in _FAILED for each in results)
    return "fail" if failed else "none"


def _dmarc_of(result: _Result, domain: str) -> bool:
    """Whether it is about this domain; a server need not say what it is about."""
    return _aligned(_domain(result.properties.get("header.from", domain)), domain)


def _passed(result: _Result) -> str:
    """The domain that a result vouches for; "" if none."""
    said = result.properties
    if result.method == "dkim":
        return _domain(said.get("header.d", "") or said.get("header.i", ""))
    return _domain(said.get("smtp.mailfrom", "")) if result.method == "spf" else ""


def _domain(text: str) -> str:
    """The domain of an address, or of itself; "" if it is none."""
    domain = text.rpartition("@")[2].strip("<>").removesuffix(".")
    return host_of(domain) if len(domain) <= LONGEST else ""


def _aligned(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return "." in short and (short == long or long.endswith("." + short))


def _results(post: Post, server: str) -> list[_Result]:
    """All that this server said of the message."""
    found: list[_Result] = []
    for each in post.fields:
        if each.name == "authentication-results":
            clauses = _clauses(each)
            words = next(clauses, "").split()
            if words and fold(words[0]) == fold(server):
                found += [result for clause in clauses if (result := _result(clause))]
    return found


def _result(clause: str) -> _Result | None:
    """RFC 8601 2.2: method [/version] = result, reason, properties."""
    words = [each.partition("=") for each in _AROUND.sub(r"\1", clause).split()]
    pairs = [(fold(name), value) for name, equals, value in words if equals]
    if not pairs:
        return None
    method, result = pairs[0]
    return _Result(method.partition("/")[0], fold(result), dict(pairs[1:]))


def _clauses(field: Field) -> Iterator[str]:
    """What stands between ";", without comments, which may be nested. A quoted string is one
    word, and holds nothing that could be taken for something else. What begins a quote or a
    comment that never ends is left out."""
    clause: list[str] = []
    quote: list[str] | None = None
    depth = 0
    for match in _TOKEN.finditer(field.value.decode("utf-8", "replace")):
        token = match[0]
        if depth:
            depth += (token == "(") - (token == ")")
        elif quote is not None:
            if token == '"':
                clause.append(_BREAKS.sub("?", "".join(quote)))
                quote = None
            else:
                quote.append(token[1:] if len(token) > 1 and token[0] == "\\" else token)
        elif token == '"':
            quote = []
        elif token == "(":
            clause.append(" ")
            depth = 1
        elif token == ";":
            yield " ".join("".join(clause).split())
            clause = []
        else:
            clause.append(token)
    if quote is None and not depth:
        yield " ".join("".join(clause).split())
