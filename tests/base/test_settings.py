"""Settings: every key from file and environment; what is wrong is named with what is allowed."""

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest

import postroom
from postroom.base.loading import find_file, load
from postroom.base.places import Tcp, Unix, parse_listen
from postroom.base.settings import (
    Destination,
    Settings,
    SettingsError,
    default_store_url,
)
from postroom.lmtp.protocol import greeting


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with no settings in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(place: Path, toml: str = "", environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a file and an environment."""
    file = place / "settings.toml"
    file.write_text(toml)
    return load(str(file), environment or {})


def sentence(place: Path, toml: str = "", environment: Mapping[str, str] | None = None) -> str:
    """What is said of settings that are refused."""
    with pytest.raises(SettingsError) as refused:
        read(place, toml, environment)
    assert "\n" not in str(refused.value)
    return str(refused.value)


class Key(NamedTuple):
    """A setting: a value other than the default, and one of a wrong type."""

    name: str  # section.key
    toml: str
    text: str
    value: Any
    wrong: str
    allowed: str
    beside: Mapping[str, str] = MappingProxyType({})  # other keys of the section that it needs


ONLY_IN_FILE = "only in the file"
KEYS = [
    Key(
        "site.hostname", '"lists.example.com"', "lists.example.com", "lists.example.com", "5", "str"
    ),
    Key("site.owner", '"boss@example.com"', "boss@example.com", "boss@example.com", "[]", "str"),
    Key(
        "site.web_url", '"https://a.example"', "https://a.example", "https://a.example", "1", "str"
    ),
    Key("store.url", '"sqlite:////a/b.db"', "sqlite:////a/b.db", "sqlite:////a/b.db", "1", "str"),
    Key("store.min_free_space", "5", "5", 5, '"5"', "int"),
    Key("store.receipts_kept", "1.5", "1.5", 1.5, '"x"', "float"),
    Key("lmtp.listen", '["[::1]:1", "a:2"]', "[::1]:1, a:2,", ("[::1]:1", "a:2"), '"a:1"', "array"),
    Key("lmtp.socket_mode", '"0600"', "0600", "0600", "600", "str"),
    Key("lmtp.socket_group", '"mail"', "mail", "mail", "8", "str"),
    Key("lmtp.allow", '["192.0.2.0/24"]', "192.0.2.0/24", ("192.0.2.0/24",), '"::1"', "array"),
    Key("lmtp.tls_certificate", '"/a.pem"', "/a.pem", "/a.pem", "true", "str"),
    Key("lmtp.tls_key", '"/k"', "/k", "/k", "1", "str", {"tls_certificate": "/a.pem"}),
    Key("lmtp.ident", '"hello"', "hello", "hello", "true", "str"),
    Key("lmtp.refuse_unknown", '"at-rcpt"', "at-rcpt", "at-rcpt", '"never"', "enum value 'never'"),
    Key("lmtp.max_message_size", "1000", "1000", 1000, "1.5", "int"),
    Key("lmtp.max_recipients", "7", "7", 7, "0", ">= 1"),
    Key("lmtp.max_connections", "8", "8", 8, "-1", ">= 1"),
    Key("lmtp.max_connections_per_client", "8", "8", 8, "0", ">= 1"),
    Key("lmtp.idle_timeout", "8", "8", 8.0, "0", "> 0"),
    Key("lmtp.message_timeout", "8", "8", 8.0, "0", "> 0"),
    Key("lmtp.memory_budget", "999999999", "999999999", 999_999_999, "true", "int"),
    Key("lmtp.commit_deadline", "2", "2", 2.0, "0", "> 0"),
    Key("maps.listen", '""', "", "", "8025", "str"),
    Key("metrics.listen", '"unix:/a"', "unix:/a", "unix:/a", "9125", "str"),
    Key("service.drain", "0.5", "0.5", 0.5, "inf", "<= 86400"),
    Key("smtp.host", '["a", "b:587"]', "a, b:587,", ("a", "b:587"), '"a"', "array"),
    Key("smtp.port", "587", "587", 587, "0", ">= 1"),
    Key("smtp.starttls", '"always"', "always", "always", '"maybe"', "enum value 'maybe'"),
    Key("smtp.user", '"u"', "u", "u", "1", "str", {"password": "p"}),
    Key("smtp.password", '"p"', "p", "p", "1", "str", {"user": "u"}),
    Key("smtp.connections", "3", "3", 3, "0", ">= 1"),
    Key("smtp.recipients", "50", "50", 50, "0", ">= 1"),
    Key("smtp.hello", '"a.example"', "a.example", "a.example", "1", "str"),
    Key("delivery.expire_after", "1.5", "1.5", 1.5, "0", "> 0"),
    Key("delivery.retry_first", "60", "60", 60.0, "0", "> 0"),
    Key("delivery.retry_most", "600", "600", 600.0, "0", "> 0"),
    Key("delivery.verp_share", "1", "1", 1.0, "2", "<= 1"),
    Key("delivery.kept", "30", "30", 30.0, "0", "> 0"),
    Key(
        "delivery.destinations",
        '{"a.example" = {per_minute = 5}}',
        ONLY_IN_FILE,
        {"a.example": Destination(0, 5)},
        "5",
        "object",
    ),
    Key("notices.templates", '"/t"', "/t", "/t", "5", "str"),
    Key("commands.most", "5", "5", 5, "0", ">= 1"),
    Key("commands.again", "0", "0", 0.0, "-1", ">= 0"),
    Key("commands.per_address", "9", "9", 9, "0", ">= 1"),
    Key("commands.per_list", "9", "9", 9, "0", ">= 1"),
    Key("commands.per_source", "9", "9", 9, "0", ">= 1"),
    Key("commands.per_site", "9", "9", 9, "0", ">= 1"),
    Key("commands.replies", "9", "9", 9, "0", ">= 1"),
    Key("commands.audit_kept", "30", "30", 30.0, "0", "> 0"),
    Key("dns.timeout", "2", "2", 2.0, "0", "> 0"),
    Key("dns.offline", "true", "true", True, '"x"', "bool"),
    Key("dns.servers", '["192.0.2.1"]', "192.0.2.1,", ("192.0.2.1",), '"a"', "array"),
    Key("arc.key", '"/k"', "/k", "/k", "1", "str", {"selector": "s", "domain": "a.example"}),
    Key("arc.selector", '"s"', "s", "s", "1", "str"),
    Key("arc.domain", '"a.example"', "a.example", "a.example", "1", "str"),
    Key("arc.authserv_id", '"mx.a.example"', "mx.a.example", "mx.a.example", "1", "str"),
    Key("log.format", '"human"', "human", "human", '"xml"', "enum value 'xml'"),
    Key("log.level", '"debug"', "debug", "debug", "10", "str"),
]
each_key = pytest.mark.parametrize("key", KEYS, ids=[key.name for key in KEYS])


def names() -> Iterator[tuple[str, str]]:
    """Section and key of every setting."""
    for section in msgspec.structs.fields(Settings):
        for key in msgspec.structs.fields(section.type):
            yield section.name, key.name


def value_of(settings: Settings, name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(getattr(settings, section), key)


def test_the_tests_below_cover_every_setting() -> None:
    assert [".".join(name) for name in names()] == [key.name for key in KEYS]


@each_key
def test_a_setting_is_read_from_the_file(place: Path, key: Key) -> None:
    section, _, name = key.name.partition(".")
    beside = "\n".join(f"{other} = {value!r}" for other, value in key.beside.items())
    found = read(place, f"[{section}]\n{name} = {key.toml}\n{beside}\n")
    assert value_of(found, key.name) == key.value
    assert value_of(Settings(), key.name) != key.value


@each_key
def test_the_environment_comes_before_the_file(place: Path, key: Key) -> None:
    if key.text == ONLY_IN_FILE:
        pytest.skip("not from the environment")
    section, _, name = key.name.partition(".")
    variable = f"POSTROOM_{section}__{name}".upper()
    environment = {variable: key.text}
    for other, value in key.beside.items():
        environment[f"POSTROOM_{section}__{other}".upper()] = value
    assert value_of(load(None, environment), key.name) == key.value
    default = json.dumps(value_of(Settings(), key.name))
    environment["POSTROOM_LOG__LEVEL"] = "debug"
    found = read(place, f"[{section}]\n{name} = {default}\n", environment)
    assert value_of(found, key.name) == key.value
    assert found.log.level == "debug"


@each_key
def test_a_wrong_value_is_refused_with_file_key_and_what_is_allowed(place: Path, key: Key) -> None:
    section, _, name = key.name.partition(".")
    said = sentence(place, f"[{section}]\n{name} = {key.wrong}\n")
    assert said.startswith(f"{place}/settings.toml: {key.name}: ")
    assert key.allowed in said


def test_without_anything_there_are_defaults_that_work(place: Path) -> None:
    found = load(None, {"HOME": "/home/anne", "POSTROOM_": "", "POSTROOM_FOO": "no setting"})
    assert found == Settings()
    assert found.lmtp.listen == ("127.0.0.1:8024",)
    assert found.lmtp.refuse_unknown == "after-data"


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            "[imap]\n",
            "imap: unknown section; there are site, store, lmtp, maps, metrics, service, smtp,",
        ),
        ("[lmtp]\nport = 1\n", "lmtp.port: unknown key; [lmtp] has listen, socket_mode,"),
        ("lmtp = 1\n", "lmtp: must be a section, [lmtp]"),
        ("owner = 'a@b'\n", "owner: unknown section"),
        ("[lmtp]\nlisten = []\n", "lmtp.listen: needs at least one HOST:PORT"),
        ("[lmtp]\nlisten = ['a:1', '8024']\n", "lmtp.listen: '8024': must be HOST:PORT"),
        ("[lmtp]\nlisten = ['localhost:25']\n", "port 25 is SMTP's"),
        ("[lmtp]\nlisten = ['::1:8024']\n", "in brackets, as in [::1]:8024"),
        ("[lmtp]\nlisten = ['a:65536']\n", "must be HOST:PORT"),
        ("[lmtp]\nlisten = ['a:-1']\n", "must be HOST:PORT"),
        ("[lmtp]\nlisten = ['unix:lmtp.sock']\n", "needs an absolute path, as in unix:/run/"),
        ("[lmtp]\nlisten = ['unix:/run/']\n", "needs an absolute path"),
        (f"[lmtp]\nlisten = ['unix:/{'x' * 107}']\n", "may have 107 octets: use a shorter one"),
        ("[lmtp]\nallow = ['192.0.2.1/24']\n", "lmtp.allow: must hold networks"),
        ("[lmtp]\nsocket_mode = '0999'\n", 'lmtp.socket_mode: must be an octal mode, as in "0660"'),
        ("[lmtp]\ntls_key = '/k'\n", "lmtp.tls_key: needs lmtp.tls_certificate"),
        ("[maps]\nlisten = '8025'\n", "maps.listen: '8025': must be HOST:PORT"),
        ("[metrics]\nlisten = 'x:y'\n", "metrics.listen: 'x:y': must be HOST:PORT"),
        ("[lmtp]\nlisten = [5]\n", "lmtp.listen[0]: Expected `str`"),
        ("[lmtp]\nmax_message_size = 268435456\n", "lmtp.memory_budget: must be at least"),
        ("[lmtp]\nident = ''\n", "lmtp.ident: must be 1 to 250 printable ASCII"),
        ("[lmtp]\nident = 'a\\u0007'\n".replace("'", '"'), "lmtp.ident: must be 1 to 250"),
        (f"[lmtp]\nident = '{'x' * 251}'\n", "lmtp.ident: must be 1 to 250"),
        (f"[site]\nhostname = '{'x' * 254}'\n", "site.hostname: must be 1 to 253"),
        ("[site]\nhostname = 'lists example'\n", "site.hostname: must be a host name"),
        ("[site]\nhostname = 'lïsts.example'\n", "site.hostname: must be 1 to 253 printable"),
        ("[site]\nowner = ''\n", "site.owner: must be an address"),
        ("[site]\nowner = 'boss'\n", "site.owner: must be an address"),
        ('[site]\nowner = "a@b\\nBcc: c@d"\n', "site.owner: must be an address"),
        ("[site]\nweb_url = 'http://lists.example'\n", "site.web_url: must be an https URL, as in"),
        ("[site]\nweb_url = 'lists.example'\n", "site.web_url: must be an https URL"),
        ("[site]\nweb_url = 'https://'\n", "site.web_url: must be an https URL"),
        ("[site]\nweb_url = 'https:///lists'\n", "site.web_url: must be an https URL"),
        ("[site]\nweb_url = 'https://a.example/?list'\n", "site.web_url: must be an https URL"),
        ("[site]\nweb_url = 'https://a.example/#x'\n", "site.web_url: must be an https URL"),
        ("[site]\nweb_url = 'https://a.example/><x'\n", "site.web_url: must be an https URL"),
        ('[site]\nweb_url = "https://a.example\\n"\n', "site.web_url: must be an https URL"),
        ("[site]\nweb_url = 'https://bücher.example'\n", "site.web_url: must be an https URL"),
        (f"[site]\nweb_url = 'https://{'x' * 193}'\n", "site.web_url: must be an https URL"),
        ("[store]\nreceipts_kept = 366\n", "store.receipts_kept: Expected `float` <= 365"),
        ("[lmtp]\ncommit_deadline = nan\n", "lmtp.commit_deadline: Expected `float`"),
        ("[lmtp]\nlisten = ['a:1'\n", "Unclosed array"),
        ("[lmtp]\nident = 'a'\nident = 'b'\n", "Cannot overwrite a value (at line 3"),
    ],
)
def test_what_cannot_be_is_refused_and_the_file_named(place: Path, toml: str, said: str) -> None:
    found = sentence(place, toml)
    assert found.startswith(f"{place}/settings.toml: ")
    assert said in found


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://lists.example.com",
        "HTTPS://lists.example.com:8443/a/b%20c/",
        "https://[2001:db8::1]/~lists",
    ],
)
def test_where_the_pages_are_is_nowhere_or_an_https_url(place: Path, url: str) -> None:
    (place / "postroom.toml").write_text(f"[site]\nweb_url = '{url}'\n")
    assert load(None, {}).site.web_url == url


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("IMAP__PORT", "1", "environment: imap: unknown section"),
        ("LMTP__PORT", "1", "environment: lmtp.port: unknown key"),
        ("LMTP__MAX_RECIPIENTS", "many", "environment: lmtp.max_recipients: Expected `int`"),
        ("LMTP__MAX_RECIPIENTS", "0", "environment: lmtp.max_recipients: Expected `int` >= 1"),
        ("LMTP__LISTEN", " , ", "environment: lmtp.listen: needs at least one"),
        ("LMTP__LISTEN", "a:1,b:25", "environment: lmtp.listen: 'b:25': port 25 is SMTP's"),
        ("SITE__OWNER", "", "environment: site.owner: must be an address"),
    ],
)
def test_a_wrong_variable_is_refused_and_the_file_not_blamed(
    place: Path, variable: str, text: str, said: str
) -> None:
    toml = "[lmtp]\nlisten = ['a:1']\nmax_recipients = 5\n"
    assert sentence(place, toml, {f"POSTROOM_{variable}": text}).startswith(said)


def test_a_wrong_file_is_blamed_though_the_environment_sets_another_key(place: Path) -> None:
    said = sentence(place, "[lmtp]\nlisten = ['a:25']\n", {"POSTROOM_LMTP__IDENT": "x"})
    assert said.startswith(f"{place}/settings.toml: lmtp.listen: 'a:25'")


def test_a_file_that_is_no_text_is_refused(place: Path) -> None:
    (place / "postroom.toml").write_bytes(b"[site]\nowner = '\xff@example.com'\n")
    with pytest.raises(SettingsError, match=r"^postroom\.toml: .*utf-8"):
        load(None, {})


def test_the_longest_host_name_and_ident_make_a_greeting_that_fits(place: Path) -> None:
    found = read(place, f"[site]\nhostname = '{'h' * 253}'\n[lmtp]\nident = '{'i' * 250}'\n")
    assert greeting(found.site.hostname, found.lmtp.ident).code == 220


def test_files_are_looked_for_in_order(place: Path) -> None:
    assert find_file(None, {}) in (None, Path("/etc/postroom/postroom.toml"))
    (place / "postroom.toml").touch()
    (place / "named.toml").touch()
    (place / "explicit.toml").touch()
    assert find_file(None, {}) == Path("postroom.toml")
    environment = {"POSTROOM_CONFIG": str(place / "named.toml")}
    assert find_file(None, environment) == place / "named.toml"
    assert find_file(str(place / "explicit.toml"), environment) == place / "explicit.toml"


@pytest.mark.parametrize("explicit", [True, False])
def test_a_file_that_was_named_must_be_there(place: Path, explicit: bool) -> None:
    (place / "postroom.toml").touch()
    missing = str(place / "missing.toml")
    environment = {} if explicit else {"POSTROOM_CONFIG": missing}
    with pytest.raises(SettingsError, match=r"missing\.toml: there is no such file"):
        load(missing if explicit else None, environment)


def test_the_database_is_in_the_state_directory_of_its_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_store_url() == "sqlite:////var/lib/postroom/postroom.db"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/anne/state")
    assert default_store_url() == "sqlite:////home/anne/state/postroom/postroom.db"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/anne")
    assert default_store_url() == "sqlite:////home/anne/.local/state/postroom/postroom.db"


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:8024", Tcp("127.0.0.1", 8024)),
        ("localhost:0", Tcp("localhost", 0)),
        ("[::1]:65535", Tcp("::1", 65535)),
        (f"unix:/{'x' * 106}", Unix(f"/{'x' * 106}")),
    ],
)
def test_an_address_to_listen_on(address: str, parsed: Tcp | Unix) -> None:
    assert parse_listen(address) == parsed
    assert str(parse_listen(address)) == address


# D21: a setting that no code reads is a promise that nobody keeps.


def reads(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Sections and keys that code reads as `X.section.key`, as `section.key` where the name
    was made from `X.section`, or as `name.key` where the name is annotated with the type."""
    types = {field.type.__name__: field.name for field in msgspec.structs.fields(Settings)}
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        known: dict[str, str] = {}
        for argument in ast.walk(scope.args):
            if isinstance(argument, ast.arg) and isinstance(argument.annotation, ast.Name):
                known[argument.arg] = types.get(argument.annotation.id, "")
        inside = list(ast.walk(scope))
        for node in inside:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        known[target.id] = node.value.attr
        for node in inside:
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            if isinstance(node.value, ast.Attribute):
                yield node.value.attr, node.attr
            elif isinstance(node.value, ast.Name):
                yield known.get(node.value.id, ""), node.attr


@pytest.mark.parametrize(("section", "key"), list(names()))
def test_d21_every_setting_is_read(section: str, key: str) -> None:
    source = Path(postroom.__file__).parent
    assert any(
        (section, key) in reads(ast.parse(file.read_text()))
        for file in source.rglob("*.py")
        if file.name not in ("settings.py", "loading.py", "faults.py")
    )


def test_d21_a_setting_that_is_only_mentioned_does_not_count_as_read() -> None:
    code = "def f(settings):\n    '''lmtp.ident'''\n    settings.lmtp.ident = 1\n    other.ident\n"
    assert ("lmtp", "ident") not in reads(ast.parse(code))
    assert ("lmtp", "ident") in reads(ast.parse("def f(s):\n    lmtp = s.lmtp\n    lmtp.ident\n"))
    assert ("lmtp", "ident") in reads(ast.parse("def f(s: Lmtp) -> str:\n    return s.ident\n"))
