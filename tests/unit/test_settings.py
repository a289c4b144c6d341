"""Settings: which source wins, what each one takes, and what a wrong one is told."""

import dataclasses
import ipaddress
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.places import EgressRule, EndpointKey, Prices, SubstrateSpec
from packetfs_compute.settings import Settings, load_settings, to_environment, unknown_variables

FIELDS = tuple(field.name for field in dataclasses.fields(Settings))


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with no packetfs.toml in it."""
    monkeypatch.chdir(tmp_path)


def refusal(environ: dict[str, str], config: Path | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ, config)
    return caught.value


class TestSources:
    def test_nothing_given_is_the_defaults(self) -> None:
        settings = load_settings({})
        assert settings == Settings()
        assert settings.embedded
        assert settings.file_roots == settings.allow_private_sources == settings.source_ports == ()
        assert settings.concurrency == 2 * (os.cpu_count() or 1)

    def test_the_environment_is_over_the_file_which_is_over_the_defaults(self, tmp_path: Path) -> None:
        file = tmp_path / "my.toml"
        file.write_text('region = "file"\nconcurrency = 3\nfile_roots = ["/a", "/b,c"]\ntimeout_s = 5\n')
        settings = load_settings({"PACKETFS_REGION": "environment", "PACKETFS_CONNECT_TIMEOUT_S": "2.5"}, file)
        assert (settings.region, settings.concurrency, settings.connect_timeout_s) == ("environment", 3, 2.5)
        assert settings.file_roots == (Path("/a"), Path("/b,c"))
        assert settings.timeout_s == 5.0
        assert settings.result_ttl_s == Settings().result_ttl_s

    def test_the_process_environment_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PACKETFS_REGION", "here")
        assert load_settings().region == "here"

    @pytest.mark.parametrize("blank", ["", "  "])
    def test_a_blank_variable_is_as_good_as_none(self, tmp_path: Path, blank: str) -> None:
        (tmp_path / "packetfs.toml").write_text('region = "file"')
        assert load_settings({"PACKETFS_REGION": blank}).region == "file"
        assert load_settings({"PACKETFS_REDIS_URL": blank}).embedded

    def test_packetfs_toml_is_read_where_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "packetfs.toml").write_text('region = "file"')
        assert load_settings({}).region == "file"

    def test_packetfs_config_names_another(self, tmp_path: Path) -> None:
        (tmp_path / "packetfs.toml").write_text('region = "file"')
        (tmp_path / "other.toml").write_text('region = "other"')
        assert load_settings({"PACKETFS_CONFIG": "other.toml"}).region == "other"

    def test_a_file_that_is_named_must_exist(self, tmp_path: Path) -> None:
        assert str(refusal({"PACKETFS_CONFIG": "none.toml"})) == "none.toml does not exist"
        assert "does not exist" in str(refusal({}, tmp_path / "none.toml"))

    @pytest.mark.parametrize("text", [b"region =", b"\xff\xfe", b"[", b"a = 1\na = 2", b"concurrency = " + b"9" * 5000])
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "packetfs.toml").write_bytes(text)
        error = refusal({})
        assert str(error).startswith("packetfs.toml cannot be read: ")
        assert error.details["field"] == "packetfs.toml"

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        assert "cannot be read" in str(refusal({}, tmp_path))

    @pytest.mark.parametrize(
        "text", ["regoin = 'x'", "REGION = 'x'", "[settings]\nregion = 'x'", "PACKETFS_REGION = 'x'"]
    )
    def test_an_unknown_key_in_the_file_is_refused_and_the_known_ones_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "packetfs.toml").write_text(text)
        error = refusal({})
        assert str(error).startswith("packetfs.toml: ")
        assert str(error).endswith(" is not a setting")
        assert "redis_url" in (error.hint or "")

    @pytest.mark.parametrize(
        ("name", "url"),
        [
            ("redis_url", "redis://:hunter2@host/0"),
            ("redis_url", "rediss://user:hunter2@host:6379"),
            ("redis_url", "unix:///run/redis.sock?db=0&password=hunter2"),
            ("broker_url", "amqp://guest:hunter2@host//"),
            ("s3_endpoint_url", "https://key:hunter2@host"),
        ],
    )
    def test_a_secret_is_refused_in_the_file_and_taken_from_the_environment(
        self, tmp_path: Path, name: str, url: str
    ) -> None:
        (tmp_path / "packetfs.toml").write_text(f'{name} = "{url}"')
        error = refusal({})
        assert f"set PACKETFS_{name.upper()}" in (error.hint or "")
        assert "hunter2" not in repr(error)
        assert getattr(load_settings({f"PACKETFS_{name.upper()}": url, "PACKETFS_CONFIG": os.devnull}), name) == url

    def test_a_url_without_one_may_stand_in_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "packetfs.toml").write_text('redis_url = "redis://user@host/0"\nbroker_url = "amqp://host"')
        assert load_settings({}).redis_url == "redis://user@host/0"


SECRET = "hunter2-0123456789"
TOML = """
metrics_port = 9100
metrics_address = "::1"
allow_unsigned = true
max_concurrency = 8
cache_dir = "/cache"
cache_bytes = 1073741824

[substrates.local]
region = "iad"

[substrates.fly-iad]
kind = "fly"
url = "https://host"
prices = { usd_per_s = 7.8e-7, step_s = 1 }
script = { answers = ["busy", 1] }

[[egress]]
host = "*.example.com"
usd_per_gb = 1

[[egress]]
host = "example.com"
usd_per_gb = 0.5
provider = "fly"
region = "iad"
"""


def test_the_fleet_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "packetfs.toml").write_text(TOML)
    settings = load_settings({})
    assert settings == dataclasses.replace(
        Settings(),
        metrics_port=9100,
        metrics_address="::1",
        allow_unsigned=True,
        max_concurrency=8,
        cache_dir=Path("/cache"),
        cache_bytes=1 << 30,
        substrates=(
            SubstrateSpec("local", "local", region="iad"),
            SubstrateSpec(
                "fly-iad",
                "fly",
                "https://host",
                prices=Prices(usd_per_s=7.8e-7, step_s=1.0),
                script='{"answers": ["busy", 1]}',
            ),
        ),
        egress=(EgressRule("*.example.com", 1.0), EgressRule("example.com", 0.5, "fly", "iad")),
    )
    assert load_settings(to_environment(settings)) == settings
    assert load_settings({"PACKETFS_SUBSTRATES": "{}"}).substrates == (), "the environment is over the file"


GOOD: list[tuple[str, str, object]] = [
    ("redis_url", "redis://host:6379/1", "redis://host:6379/1"),
    ("redis_url", " rediss://host ", "rediss://host"),
    ("redis_url", "unix:///run/redis.sock", "unix:///run/redis.sock"),
    ("broker_url", "amqp://guest@host//", "amqp://guest@host//"),
    ("s3_endpoint_url", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    ("data_dir", "/var/lib/packetfs", Path("/var/lib/packetfs")),
    ("data_dir", "~/x", Path.home() / "x"),
    ("result_ttl_s", "60", 60),
    ("connect_timeout_s", "0.1", 0.1),
    ("connect_timeout_s", "60", 60.0),
    ("concurrency", " 7 ", 7),
    ("region", " iad ", "iad"),
    ("timeout_s", "1e-3", 0.001),
    ("file_roots", "/a", (Path("/a"),)),
    ("file_roots", " /a , /b c ,,", (Path("/a"), Path("/b c"))),
    ("file_roots", '["/a,b", "/c "]', (Path("/a,b"), Path("/c "))),
    ("file_roots", ",", ()),
    ("allow_private_sources", "127.0.0.0/8, ::1/128, 10.1.2.3",
     (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"), ipaddress.ip_network("10.1.2.3/32"))),
    ("source_ports", "1,65535", (1, 65535)),
    ("stall_timeout_s", "600", 600.0),
    ("max_skip_bytes", "0", 0),
    ("s3_region", "eu-west-1", "eu-west-1"),
    ("substrates", '{"fly": {}}', (SubstrateSpec("fly", "fly"),)),
    ("substrates", ' {"fly-iad": {"kind": "fly", "url": "https://host", "slots": 3, "prices": {"usd_per_s": 7.8e-7}}} ',
     (SubstrateSpec("fly-iad", "fly", "https://host", slots=3, prices=Prices(usd_per_s=7.8e-7)),)),
    ("substrates", "{}", ()),
    ("egress", '[{"host": "*.example.com", "usd_per_gb": 0.05}, {"host": "s3://b", "usd_per_gb": 0, "provider": "aws"}]',
     (EgressRule("*.example.com", 0.05), EgressRule("s3://b", 0.0, "aws"))),
    ("egress", "[]", ()),
    ("keys", f"fly=k1:{SECRET}", (EndpointKey("fly", "k1", SECRET),)),
    ("keys", f" fly=k1:{SECRET} , edge=k-2:{SECRET}== ",
     (EndpointKey("fly", "k1", SECRET), EndpointKey("edge", "k-2", f"{SECRET}=="))),
    ("keys", f'["fly=k1:{SECRET}"]', (EndpointKey("fly", "k1", SECRET),)),
    ("metrics_port", "0", 0),
    ("metrics_port", "65535", 65535),
    ("metrics_address", " 0.0.0.0 ", "0.0.0.0"),
    ("gateway_host", "0.0.0.0", "0.0.0.0"),
    ("gateway_port", "0", 0),
    ("gateway_origins", "https://a.example,http://b:81", ("https://a.example", "http://b:81")),
    ("gateway_requests_per_minute", "60", 60),
    ("flower_url", "http://127.0.0.1:5555/", "http://127.0.0.1:5555/"),
    ("gateway_proxies", "10.0.0.1/32,fd00::/8", (ipaddress.ip_network("10.0.0.1/32"), ipaddress.ip_network("fd00::/8"))),
    ("browsers_open", "1", True),
    ("one_core", "0", False),
    ("local_workers", "64", 64),
    ("browser_secret", SECRET, SECRET),
    ("signing_keys", f"old:{SECRET},new:[{SECRET}]", (f"old:{SECRET}", f"new:[{SECRET}]")),
    ("signing_keys", f'["k1:{SECRET}"]', (f"k1:{SECRET}",)),
    ("allow_unsigned", "1", True),
    ("allow_unsigned", "False", False),
    ("max_concurrency", "10000", 10_000),
    ("cache_dir", "~/cache", Path.home() / "cache"),
    ("cache_dir", "/var/cache/packetfs", Path("/var/cache/packetfs")),
    ("cache_bytes", "1048576", 1 << 20),
    ("cache_entries", "0", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_what_a_variable_may_hold(name: str, text: str, value: object) -> None:
    got = getattr(load_settings({f"PACKETFS_{name.upper()}": text}), name)
    assert got == value
    assert type(got) is type(value)


def test_every_setting_is_in_the_table() -> None:
    assert {name for name, _, _ in GOOD} == set(FIELDS)


WRONG_URLS = ["host:6379", "redis", "redis:/host", "http://host", "http:x", "//host", "redis://[::1", "REDIS://host"]
WRONG_SECONDS = ["-1", "0", "nan", "inf", "-inf", "1e400", "x", "5s", "1,5", "9" * 5000]
WRONG_COUNTS = ["-1", "1.0", "1e3", "0x10", "x", "9" * 30, "9" * 5000]
WRONG_TEXTS = [
    *[("gateway_port", text) for text in (*WRONG_COUNTS, "65536")],
    *[("gateway_requests_per_minute", text) for text in (*WRONG_COUNTS, "0")],
    *[("gateway_origins", text) for text in ("*", "https://A.example", "https://a/x")],
    *[("redis_url", text) for text in [*WRONG_URLS, "amqp://host"]],
    *[("broker_url", text) for text in WRONG_URLS],
    *[("gateway_proxies", text) for text in ("proxy.example", "10.0.0.1/8")],
    *[("browser_secret", text) for text in ("x" * 15, "x" * 257)],
    *[("browsers_open", text) for text in ("maybe",)],
    *[("flower_url", text) for text in ("127.0.0.1:5555", "javascript:alert(1)", "http://[")],
    *[("s3_endpoint_url", text) for text in ("host", "s3://bucket", "ftp://host", "http://[")],
    *[("connect_timeout_s", text) for text in [*WRONG_SECONDS, "0.09", "60.1"]],
    *[("timeout_s", text) for text in [*WRONG_SECONDS, "0.0009", "3600.5"]],
    *[("stall_timeout_s", text) for text in [*WRONG_SECONDS, "601"]],
    *[("result_ttl_s", text) for text in [*WRONG_COUNTS, "59", "2592001"]],
    *[("concurrency", text) for text in [*WRONG_COUNTS, "0", "1025"]],
    *[("local_workers", text) for text in [*WRONG_COUNTS, "0", "65"]],
    *[("max_skip_bytes", text) for text in [*WRONG_COUNTS, "1099511627777"]],
    *[("source_ports", text) for text in ("0", "65536", "80,x", "80;81", "[80", "[80.5]", "[true]")],
    *[("allow_private_sources", text) for text in ("127.0.0.1/8", "127.0.0.0/33", "localhost", "10.0.0.0/8;::1/128")],
    *[("file_roots", text) for text in ("[1]", '["/a", ""]', "[", "~no-such-user-here/x")],
    ("data_dir", "~no-such-user-here/x"),
    ("cache_dir", "~no-such-user-here/x"),
    *[("substrates", text) for text in
      ("fly", "[]", "null", "{", "7", '{"Fly": {}}', '{"fly": 1}', '{"fly": {"slot": 1}}', '{"fly": {"slots": 0}}',
       '{"fly": {"prices": {"usd_per_s": -1}}}', '{"fly": {"url": "host"}}')],
    *[("egress", text) for text in
      ("{}", "null", "[1]", "[", "*.example.com=0.05", '[{"host": "a"}]', '[{"host": "*", "usd_per_gb": 1}]',
       '[{"host": "a", "usd_per_gb": -1}]', '[{"host": "a", "usd_per_gb": 1, "per": "TB"}]')],
    *[("keys", text) for text in
      (f"k1:{SECRET}", f"fly={SECRET}", "fly=k1:short", f"fly=k1:{SECRET} x", f"Fly=k1:{SECRET}", "[1]", "[",
       f"[[{SECRET}]]", f"fly=k1:{SECRET},,{SECRET}")],
    *[("signing_keys", text) for text in (SECRET, "k1:short", f":{SECRET}", f"k.1:{SECRET}", "[true]", f'["k1:{SECRET}"')],
    *[("metrics_port", text) for text in [*WRONG_COUNTS, "65536"]],
    *[("max_concurrency", text) for text in [*WRONG_COUNTS, "0", "10001"]],
    *[("cache_bytes", text) for text in [*WRONG_COUNTS, "1048575", "1GiB"]],
    *[("cache_entries", text) for text in ("-1", "100000001", "1e3")],
    *[("allow_unsigned", text) for text in ("yes", "on", "2", "nope")],
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), WRONG_TEXTS)
def test_a_wrong_variable_is_named_with_what_would_be_right(name: str, text: str) -> None:
    variable = f"PACKETFS_{name.upper()}"
    error = refusal({variable: text})
    assert "hunter2" not in repr(error)
    assert error.details["field"] == variable
    assert str(error).startswith((f"{variable} is ", f"{variable} cannot be used"))
    assert error.hint
    assert len(str(error)) < 200


@pytest.mark.parametrize(
    ("name", "toml"),
    [
        *[(name, value) for name in ("redis_url", "region", "data_dir") for value in ("1", "''", "[]", "true", "{a=1}")],
        *[(name, value) for name in ("connect_timeout_s", "timeout_s") for value in
          ("true", "[]", "'x'", "nan", "-inf", "1979-05-27", "1" + "0" * 400)],
        *[(name, value) for name in ("concurrency", "result_ttl_s") for value in
          ("true", "100.0", "[100]", "{}", "1979-05-27")],
        *[(name, value) for name in ("file_roots", "source_ports", "allow_private_sources") for value in
          ("1", "true", "{}", "[true]", "[[1]]", "[1.5]")],
        *[("substrates", value) for value in ("1", "true", "[]", "[{}]", "{fly=1}", "{Fly={}}", "{fly={kind=1}}",
          "{fly={slots=1.5}}", "{fly={script={at=1979-05-27}}}", "{fly={prices={usd_per_s=nan}}}")],
        *[("egress", value) for value in ("1", "{}", "[1]", "['a']", "[{host='a'}]", "[{host='a', usd_per_gb=inf}]")],
        *[(name, value) for name in ("metrics_port", "max_concurrency", "cache_bytes") for value in
          ("true", "2000000.0", "[2000000]", "-1", "1979-05-27")],
        *[("allow_unsigned", value) for value in ("1", "0", "[]", "'yes'", "1979-05-27")],
        *[("cache_dir", value) for value in ("1", "true", "[]", "''")],
        *[("metrics_address", value) for value in ("1", "''", "[]")],
    ],
)  # fmt: skip
def test_a_wrong_value_in_the_file_is_named(tmp_path: Path, name: str, toml: str) -> None:
    (tmp_path / "packetfs.toml").write_text(f"{name} = {toml}")
    error = refusal({})
    assert str(error).startswith((f"packetfs.toml: {name} is ", f"packetfs.toml: {name} cannot be used"))
    assert error.details["field"] == f"packetfs.toml: {name}"


@pytest.mark.parametrize(
    "url",
    ["http://:hunter2@host", "http://user:hunter2@host/0", "//:hunter2@host", ":hunter2@host", "redis://:[hunter2]@host",
     "redis://:hunter2@[::1", "redis:/u:hunter2@h", "unix:/run/redis.sock?password=hunter2"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["environment", "file"])
def test_an_error_never_shows_a_password(tmp_path: Path, url: str, place: str) -> None:
    if place == "environment":
        error = refusal({"PACKETFS_REDIS_URL": url})
    else:
        (tmp_path / "packetfs.toml").write_text(f'redis_url = "{url}"')
        error = refusal({})
    assert "REDIS_URL" in error.details["field"].upper()
    assert "hunter2" not in repr(error)


@pytest.mark.parametrize(
    ("name", "toml", "text"),
    [("keys", f'["fly=k1:{SECRET}"]', f"fly=k1:{SECRET}"), ("keys", f'"fly=k1:{SECRET}"', f"fly=k1:{SECRET}"),
     ("keys", "[]", f"fly=k1:{SECRET}"), ("signing_keys", f'["k1:{SECRET}"]', f"k1:{SECRET}"),
     ("signing_keys", f'"k1:{SECRET}"', f"k1:{SECRET}")],
)  # fmt: skip
def test_keys_are_refused_in_the_file_and_taken_from_the_environment(
    tmp_path: Path, name: str, toml: str, text: str
) -> None:
    (tmp_path / "packetfs.toml").write_text(f"{name} = {toml}")
    error = refusal({})
    assert str(error) == f"packetfs.toml: {name} holds a secret"
    assert f"set PACKETFS_{name.upper()}" in (error.hint or "")
    assert "hunter2" not in repr(error)
    assert getattr(load_settings({f"PACKETFS_{name.upper()}": text, "PACKETFS_CONFIG": os.devnull}), name)


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize("url", ["https://user:hunter2@host", "ftp://user:hunter2@host", "https://hunter2@host"])
def test_a_password_in_a_substrates_url_is_refused_and_not_shown(tmp_path: Path, place: str, url: str) -> None:
    if place == "environment":
        error = refusal({"PACKETFS_SUBSTRATES": f'{{"fly": {{"url": "{url}"}}}}'})
    else:
        (tmp_path / "packetfs.toml").write_text(f'[substrates.fly]\nurl = "{url}"')
        error = refusal({})
    assert "substrates.fly.url" in (error.hint or "")
    assert "hunter2" not in repr(error)


def test_settings_that_are_printed_show_no_key() -> None:
    settings = load_settings({"PACKETFS_KEYS": f"fly=k1:{SECRET}", "PACKETFS_SIGNING_KEYS": f"k1:{SECRET}"})
    assert settings.keys
    assert settings.signing_keys
    assert "hunter2" not in repr(settings)


class TestToEnvironment:
    @pytest.mark.parametrize(("name", "text", "value"), GOOD)
    def test_a_child_gets_the_very_same_settings(self, name: str, text: str, value: object) -> None:
        settings = load_settings({f"PACKETFS_{name.upper()}": text})
        assert load_settings(to_environment(settings)) == settings

    def test_nothing_of_the_parents_environment_or_file_shows_through(self, tmp_path: Path) -> None:
        (tmp_path / "packetfs.toml").write_text('redis_url = "redis://file"\nfile_roots = ["/file"]\nregion = "file"')
        outer = {"PACKETFS_REDIS_URL": "redis://outer", "PACKETFS_FILE_ROOTS": "/outer", "PACKETFS_SOURCE_PORTS": "81"}
        own = dataclasses.replace(load_settings(outer), redis_url=None, file_roots=(), source_ports=())
        assert load_settings({**outer, **to_environment(own)}) == own

    @patient
    @given(
        st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), max_size=4),
        st.lists(st.integers(1, 65535)),
        st.lists(st.ip_addresses()),
        st.floats(0.001, 3600),
        st.sampled_from([None, "redis://host", "unix:///a,b"]),
    )
    def test_any_settings(
        self, names: list[str], ports: list[int], hosts: list[Any], timeout_s: float, url: str | None
    ) -> None:
        settings = Settings(
            redis_url=url,
            file_roots=tuple(Path("/" + name) for name in names),
            source_ports=tuple(ports),
            allow_private_sources=tuple(ipaddress.ip_network(host) for host in hosts),
            timeout_s=timeout_s,
        )
        assert load_settings(to_environment(settings)) == settings

    def test_it_is_what_a_process_can_be_given(self) -> None:
        given_ = to_environment(Settings())
        assert set(given_) == {"PACKETFS_CONFIG", *(f"PACKETFS_{name.upper()}" for name in FIELDS)}
        assert all(isinstance(value, str) and "\0" not in value for value in given_.values())
        assert unknown_variables(given_) == []


def test_unknown_variables_are_told() -> None:
    environ = {
        "PACKETFS_REGOIN": "x",
        "PACKETFS_region": "x",
        "PACKETFS_": "x",
        "PACKETFS_REGION": "x",
        "PACKETFS_CONFIG": "x",
        "PACKETFS_FORCE_KERNEL": "x",
        "PACKETFS_NO_EXTENSION": "1",
        "PATH": "x",
    }
    assert unknown_variables(environ) == ["PACKETFS_", "PACKETFS_REGOIN", "PACKETFS_region"]


class TestSocketPath:
    def test_it_is_in_the_data_directory(self) -> None:
        settings = Settings(data_dir=Path("/var/lib/packetfs"))
        assert settings.socket_path == Path("/var/lib/packetfs/redis.sock")
        assert settings.state_url == "unix:///var/lib/packetfs/redis.sock"

    @pytest.mark.parametrize("name", ["x" * 90, "é" * 50, "deep/" * 30])
    def test_a_long_data_directory_has_a_short_one_of_its_own(self, name: str) -> None:
        settings = Settings(data_dir=Path("/tmp") / name)
        assert len(os.fsencode(settings.socket_path)) <= 100
        assert settings.socket_path == Settings(data_dir=Path("/tmp") / name).socket_path
        assert settings.socket_path != Settings(data_dir=Path("/tmp") / (name + "y")).socket_path
        assert settings.socket_path.parent != settings.data_dir

    @pytest.mark.parametrize(("length", "direct"), [(100, True), (101, False)])
    def test_the_longest_that_fits(self, length: int, direct: bool) -> None:
        data_dir = Path("/" + "x" * (length - len("//redis.sock")))
        assert len(str(data_dir / "redis.sock")) == length
        assert (Settings(data_dir=data_dir).socket_path.parent == data_dir) is direct

    def test_a_long_tmpdir_is_no_obstacle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", "/tmp/" + 90 * "t")
        path = Settings(data_dir=Path("/tmp") / ("x" * 90)).socket_path
        assert path.parent.parent == Path("/tmp")
        assert len(os.fsencode(path)) <= 100

    def test_a_redis_of_ones_own_is_the_state(self) -> None:
        settings = Settings(redis_url="redis://host/3")
        assert not settings.embedded
        assert settings.state_url == "redis://host/3"


def test_settings_are_values() -> None:
    settings = load_settings({"PACKETFS_FILE_ROOTS": "/a", "PACKETFS_ALLOW_PRIVATE_SOURCES": "::1/128"})
    assert hash(settings) == hash(dataclasses.replace(settings))
    assert settings != Settings()
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.region = "elsewhere"  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        settings.regoin = "elsewhere"  # type: ignore[attr-defined]


def test_the_readme_names_every_setting() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    missing = [name for name in to_environment(Settings()) if f"`{name}`" not in readme]
    assert missing == []
