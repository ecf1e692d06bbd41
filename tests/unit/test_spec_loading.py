"""Complaints about YAML say file, line, column, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare import assets
from fairshare.errors import SpecError
from fairshare.spec.launcher import Launcher
from fairshare.spec.loading import SPECS, load, load_launcher, load_scenario, validate
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Scenario

GOOD = """\
name: good
tenants:
  - name: chat
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 32}}
    output: {kind: uniform, min: 4, max: 8}
"""


def _error(tmp_path: Path, text: str, spec: type = Scenario) -> SpecError:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load(path, spec)
    return caught.value


def test_a_good_file_loads(tmp_path: Path) -> None:
    """The smallest scenario needs a name and one tenant."""
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    assert [tenant.name for tenant in load(path, Scenario).expanded()] == ["chat"]


@pytest.mark.parametrize(
    ("change", "place", "message", "hint"),
    [
        (("output:", "outptu:"), "5:5", "unknown key 'tenants.0.outptu'", "did you mean output?"),
        (("fixed, tokens: 32", "fixed, tokens: none"), "4:62", "tokens' is 'none'", ""),
        (("fixed, tokens: 32", "fixed, tokens: -1"), "4:62", "greater than or equal to 1", ""),
        (("kind: uniform", "kind: unifrom"), "5:13", "needs a known kind", "uniform"),
        (("min: 4, max: 8", "min: 9, max: 8"), "5:13", "max (8) is less than min (9)", ""),
        (("name: good", "nmae: good"), "1:1", "unknown key 'nmae'", "did you mean name?"),
    ],
)
def test_each_mistake_has_its_place(
    tmp_path: Path, change: tuple[str, str], place: str, message: str, hint: str
) -> None:
    """File, line and column point at what is wrong, and the message says what."""
    error = _error(tmp_path, GOOD.replace(*change))
    assert str(error.where).endswith(f"x.yaml:{place}")
    assert message in error.message
    assert hint in (error.hint or "")


def test_all_complaints_come_at_once(tmp_path: Path) -> None:
    """A file with two mistakes is mended in one go."""
    text = GOOD.replace("output:", "outptu:").replace("tokens: 32", "tokens: 0")
    error = _error(tmp_path, text)
    assert any("greater than or equal to 1" in line for line in error.evidence)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a", "not valid YAML"),
        ("- a\n- b\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("name: a\nname: b\ntenants: []\n", "'name' is given twice"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("? [a, b]\n: 1\n", "a key must be text"),
    ],
)
def test_what_is_not_our_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Broken, empty, ambiguous and malicious YAML ends in a message with its place."""
    error = _error(tmp_path, text)
    assert message in error.message
    assert error.where is not None


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Binary data is not decoded into nonsense."""
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not valid YAML"):
        load(path, Scenario)


def test_shares_cannot_exceed_the_device(tmp_path: Path) -> None:
    """Two tenants with 60 % each are refused before anything starts."""
    tenant = GOOD.split("tenants:\n")[1]
    text = (
        f"name: x\ntenants:\n{tenant}    share: 60%\n{tenant.replace('chat', 'b')}    share: 0.6\n"
    )
    assert "add up to 120%" in _error(tmp_path, text).message


def test_tenants_need_names_of_their_own(tmp_path: Path) -> None:
    """Records are told apart by tenant, so names that collide are refused, expanded ones too."""
    tenant = GOOD.split("tenants:\n")[1]
    other = tenant.replace("chat", "chat-2")
    text = f"name: x\ntenants:\n{tenant}    count: 2\n{other}"
    assert "two tenants are named 'chat-2'" in _error(tmp_path, text).message


def test_no_tenant_is_called_as_the_total_is(tmp_path: Path) -> None:
    """Tables and figures call the total `all`, so a tenant of that name would vanish in it."""
    assert "named 'all'" in _error(tmp_path, GOOD.replace("name: chat", "name: all")).message


def test_a_launcher_must_start_something(tmp_path: Path) -> None:
    """A launcher without a command is refused, unless its servers are somebody else's."""
    assert "command is missing" in _error(tmp_path, "name: x\nengine: vllm\n", Launcher).message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine: external\nendpoints: {}\n", "endpoints are missing"),
        ("engine: external\nargs: {dtype: auto}\n", "remove args"),
        ("engine: external\napi_key_env: KEY\n", "remove api_key_env"),
        ("engine: tgi\ncommand: [x]\napis: []\n", "at least 1 item"),
        ("engine: tgi\ncommand: [x]\nendpoints: {a: {url: http://x}}\n", "engine external"),
        ("engine: tgi\ncommand: [x]\nkv_bytes: 1G\n", "kv_bytes does nothing"),
    ],
)
def test_a_launcher_says_nothing_in_vain(tmp_path: Path, text: str, message: str) -> None:
    """A launcher's key that could have no effect is refused instead of being passed over."""
    assert message in _error(tmp_path, f"name: x\n{text}", Launcher).message


@pytest.mark.parametrize("name", ["external", "vllm-cpu"])
def test_a_launcher_survives_being_written_out(name: str) -> None:
    """A launcher read back from a cell's configuration, defaults written out, is the same one."""
    launcher, _ = load_launcher(name)
    assert validate(launcher.model_dump(mode="json"), Launcher) == launcher


@pytest.mark.parametrize("extra", ["prompts", "output"])
def test_a_trace_brings_its_own_lengths(tmp_path: Path, extra: str) -> None:
    """Lengths beside a trace would be passed over in silence, so they are refused."""
    length = {"prompts": "{kind: synthetic, tokens: {tokens: 8, kind: fixed}}"}
    text = (
        "name: x\ntenants:\n  - name: a\n    arrival: {kind: azure-trace, path: t.csv}\n"
        f"    {extra}: {length.get(extra, '{kind: fixed, tokens: 8}')}\n"
    )
    assert "a trace brings its own" in _error(tmp_path, text).message


def test_a_matrix_names_nothing_twice(tmp_path: Path) -> None:
    """A cell listed twice would overwrite itself."""
    error = _error(tmp_path, "name: x\nscenarios: [a]\nmodes: [mps, mps]\n", Matrix)
    assert "modes names something twice" in error.message


def test_unknown_names_suggest_the_closest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in a scenario's name is answered with the right one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="did you mean two-tenants"):
        load_scenario("two-tenant")
    with pytest.raises(SpecError, match="does not exist"):
        load_scenario("./nowhere.yaml")


def test_own_files_come_before_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in ./scenarios wins over the shipped one of the same name."""
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "two-tenants.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    scenario, path = load_scenario("two-tenants")
    assert scenario.name == "good"
    assert path == folder / "two-tenants.yaml"


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_everything_shipped_is_valid(kind: str) -> None:
    """Each shipped file loads, describes itself, and is named as its file is."""
    files = assets.names(kind)
    assert files
    for name, path in files.items():
        loaded = load(path, SPECS[kind])
        assert getattr(loaded, "name") == name  # noqa: B009  (the common base has no name)
        assert getattr(loaded, "description")  # noqa: B009


@pytest.mark.parametrize(
    "text",
    [
        "name: &a [*a]\n",
        "&a\nname: brief\ntenants: *a\n",
        "a: " + "[" * 5000 + "]" * 5000,
        "a: " + "{a: " * 3000 + "1" + "}" * 3000,
    ],
)
def test_what_contains_itself_or_nests_without_end_is_refused(tmp_path: Path, text: str) -> None:
    """An alias to what it stands in, and thousands of brackets, end in a message."""
    assert "nested too deeply" in _error(tmp_path, text).message


@pytest.mark.parametrize("layer", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_cannot_stand_for_billions_of_values(tmp_path: Path, layer: str) -> None:
    """Twelve lines of aliases of aliases are counted, not written out."""
    text = "a0: &a0 {x: 1}\n"
    for i in range(1, 12):
        text += f"a{i}: &a{i} {layer.format(','.join([f'*a{i - 1}'] * 9))}\n"
    assert "says too much" in _error(tmp_path, text).message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: good", "seed: 99999999999999999999\nname: good", "too large"),
        ("tokens: 32", f"tokens: 0x{'f' * 5000}", "too large"),
        ("name: good", 'description: "\\uD800"\nname: good', "not valid Unicode"),
        ("name: good", 'description: "a\\0b"\nname: good', "a NUL character"),
        ("name: good", "timing: {window_s: [1]}\nname: good", "is not a duration"),
        ("name: good", "timing: {window_s: true}\nname: good", "is not a duration"),
        ("name: good", "timing: {window_s: 400d}\nname: good", "less than or equal to"),
        ("name: good", f"timing: {{window_s: {'9' * 400}s}}\nname: good", "is not a duration"),
        ("name: good", "no: 1\nname: good", "a key must be text"),
    ],
)
def test_values_that_cannot_be_stored_or_meant_have_a_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """Numbers beyond 64 bits, half characters and lists for times are told with line and column."""
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    error = _error(tmp_path, text)
    assert message in str(error)
    assert error.where is not None and error.where.line is not None


def test_two_thousand_mistakes_are_told_in_a_moment(tmp_path: Path) -> None:
    """Only the complaints that are shown are worked out."""
    error = _error(tmp_path, GOOD + "".join(f"  - {{name: t{i}, bad: 1}}\n" for i in range(2000)))
    assert "unknown key" in error.message
    assert len(error.evidence) == 4


def test_a_missing_kind_lists_the_kinds(tmp_path: Path) -> None:
    """Without any kind the hint still says which there are."""
    error = _error(tmp_path, GOOD.replace("- name: chat", "- name: chat\n    arrival: {}"))
    assert error.hint is not None
    assert "poisson" in error.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": {"A=B": "x"}}, "env"),
        ({"health_path": "http://elsewhere/"}, "health_path"),
        ({"command": [" "]}, "command is missing"),
        ({"api_key_env": "not a name"}, "api_key_env"),
    ],
)
def test_what_no_process_could_be_started_with_is_refused(
    changes: dict[str, object], message: str
) -> None:
    """Names of variables, paths of URLs and programs are checked before anything starts."""
    good = {"name": "l", "engine": "virtual", "command": ["x"]}
    validate(good, Launcher)
    with pytest.raises(SpecError) as caught:
        validate(good | changes, Launcher)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999", "http://:80", "http://a:0"]
)
def test_an_endpoint_that_nobody_can_connect_to_is_refused(url: str) -> None:
    """A URL needs a host, and a port that exists."""
    launcher = {"name": "l", "engine": "external", "endpoints": {"default": {"url": url}}}
    with pytest.raises(SpecError, match="url"):
        validate(launcher, Launcher)


def test_some_tenants_of_a_scenario_make_one_of_their_own() -> None:
    """Alone, in pairs: NAME:A+B keeps the rest of the file, in its own order, and names both."""
    whole, path = load_scenario("four-tenants")
    pair, same = load_scenario("four-tenants:batch+chat")
    assert (pair.name, same) == ("four-tenants.chat.batch", path)
    assert pair.tenants == [t for t in whole.tenants if t.name in ("chat", "batch")]
    assert pair.timing == whole.timing
    with pytest.raises(SpecError, match="no tenant named 'nobody'") as caught:
        load_scenario("four-tenants:nobody")
    assert "chat, code" in str(caught.value.hint)
