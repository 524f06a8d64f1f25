"""Configuration: what is right is typed, what is wrong is one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.build import describe, hours_of, track_options
from streampose.cli.run import check
from streampose.config import Config, validate
from streampose.config_file import expand, load
from streampose.errors import ConfigError
from streampose.hours import Hours
from streampose.redact import redact
from streampose.units import parse_duration, parse_size

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_configuration_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATE_PASSWORD", "YARD_PASSWORD"):
        monkeypatch.setenv(name, "x")
    assert load(path).cameras


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cameras: {gate: {url: a.mp4}}\ndetekt: {}", 'detekt: unknown key; did you mean "detect"?'),
        ("cameras: {gate: {url: a.mp4, polcy: auto}}", 'cameras.gate.polcy: unknown key; did you mean "policy"?'),
        (
            "cameras: {gate: {url: a.mp4}}\ndetect: {thresold: 1}",
            'detect.thresold: unknown key; did you mean "threshold"?',
        ),
        (
            "cameras: {gate: {url: a.mp4}}\ndetect: {threshold: high}",
            "detect.threshold: a number is wanted (given: 'high')",
        ),
        (
            "cameras: {gate: {url: a.mp4}}\ndetect: {threshold: 1.5}",
            "detect.threshold: input should be less than",
        ),
        (
            "cameras: {gate: {url: a.mp4}}\ndetect: {threshold: 0}",
            "detect.threshold: input should be greater than 0 (given: 0)",
        ),
        ("cameras: {gate: {url: a.mp4}}\ndetect: {threshold: 1}", "detect.threshold: input should be less than 1"),
        (
            "cameras: {gate: {url: a.mp4}}\ntrack: {low_threshold: 0}",
            "track.low_threshold: input should be greater than 0",
        ),
        ("cameras: {gate: {url: a.mp4}}\ntrack: {lost_after: soon}", 'track.lost_after: a duration such as "500ms"'),
        ("cameras: {gate: {url: a.mp4, policy: newest}}", "cameras.gate.policy: input should be"),
        (
            "cameras: {gate: {url: a.mp4, threads: 1000}}",
            "cameras.gate.threads: input should be less than or equal to 64",
        ),
        ("cameras: {gate: {}}", "cameras.gate.url: missing"),
        ("cameras: {gate: {ulr: a.mp4}}", 'cameras.gate.ulr: unknown key; did you mean "url"?'),
        ("cameras: {gate: {url: ''}}", "cameras.gate.url: empty; a file, a folder"),
        ("cameras: {gate: {url: 'rtsp://cam/1', detect_url: ''}}", "cameras.gate.detect_url: empty; a file, a folder"),
        ('cameras: {gate: {url: "a\\0.mp4"}}', "cameras.gate.url: holds a character that no name can"),
        ('cameras: {gate: {url: "a\\ud800.mp4"}}', "cameras.gate.url: holds a character that no name can"),
        (
            'cameras: {gate: {url: a.mp4}}\nsinks: [{pictures: {path: "a\\0"}}]',
            "sinks: pictures.path: holds a character",
        ),
        (
            "cameras: {gate: {url: a.mp4}}\nsinks: [{jsonl: {path: ., segment: 1m}}]",
            "sinks: jsonl.path: this is a folder; name a file in it",
        ),
        ("cameras: {gate: a.mp4}", "cameras.gate: a mapping is wanted, keys with values (given: 'a.mp4')"),
        ("cameras: {gate: {url: a.mp4}}\ndetect: 5", "detect: a mapping is wanted"),
        (
            "cameras: {gate: {url: a.mp4}}\ntrack: {lost_after: .inf}",
            "track.lost_after: input should be a finite number",
        ),
        (
            "cameras: {gate: {url: a.mp4}}\nsmooth: {noise: .inf}",
            "smooth.noise: input should be less than or equal to 1000000 (given: inf)",
        ),
        (
            "cameras: {gate: {url: a.mp4}}\nsinks: [{jsonl: {path: 'o/{camera}.jsonl', segment: .inf}}]",
            "segment: input should be a finite number",
        ),
        ("cameras: {}", "cameras: empty; at least one is wanted"),
        ("cameras: {'a b': {url: x}}", '"a b" is no camera name'),
        ("cameras: {gate: {url: a.mp4}}\nsinks: [{jsnl: {}}]", '"jsnl" is no sink; did you mean "jsonl"?'),
        (
            "cameras: {gate: {url: a.mp4}}\nsinks: [{record: {crff: 1}}]",
            'record.crff: unknown key; did you mean "crf"?',
        ),
        ("cameras: {a: {url: x}, b: {url: y}}\nsinks: [{record: {path: out.mp4}}]", "put {camera} in it"),
        (
            "cameras: {gate: {url: '${NOT_SET_ANYWHERE}'}}",
            "cameras.gate.url: the environment variable NOT_SET_ANYWHERE",
        ),
        ("cameras: {gate: {url: a}, gate: {url: b}}", 'the key "gate" stands twice'),
        (
            "cameras: {gate: {url: 'rtsp://cam/1', hours: ['6-22']}}",
            'cameras.gate.hours: "6-22" is no window of the day',
        ),
        ("cameras: {gate: {url: 'rtsp://cam/1', hours: []}}", "cameras.gate.hours: at least one window"),
        ("cameras: [", "not YAML"),
        ("{[a]: b}", "line 1: not YAML: a key must be a text"),
        ("cameras: {gate: {url: a.mp4,\n password: 2024-99-99}}", "line 2: not YAML: month must be in 1..12"),
        ("cameras: {gate: {url: 'a\0'}}", "not YAML: unacceptable character #x0000"),
        (f"cameras: {'[' * 1200}{']' * 1200}", "config.yaml: nested too deep"),
        ("", "a mapping with `cameras:` is wanted, this is empty"),
        ("cameras: [a.mp4]", "cameras: a mapping is wanted, keys with values"),
        ("cameras: {2024-01-01: {url: a.mp4}}", "cameras: 2024-01-01 is no text to YAML; write the name in quotes"),
        ("cameras: {gate: {url: a.mp4, 5: 3}}", "cameras.gate.5: unknown key"),
        ("cameras: {gate: {url: a.mp4, hours: '6:00-7:00'}}", "cameras.gate.hours: a list is wanted, such as [a, b]"),
        ("cameras: {gate: {url: a.mp4, password: 5}}", "cameras.gate.password: a text is wanted, in quotes"),
        ("cameras: {gate: {url: a.mp4}}\ndevice: gpu", "device: none of auto, cpu, cuda"),
        ("cameras: {gate: {url: a.mp4}}\ndetect: {every: true}", "detect.every: a number is wanted (given: True)"),
        ("cameras: {gate: {url: a.mp4}}\nsmooth: {gate: true}", "smooth.gate: a number is wanted (given: True)"),
        ("cameras: {gate: {url: a.mp4}}\ndetect: {every: 1.5}", "detect.every: a whole number is wanted"),
        ("cameras: {gate: {url: a.mp4}}\ndetect: {every: 1.0e+300}", "detect.every: a smaller number is wanted"),
        ("cameras: {gate: {url: a.mp4}}\nsmooth: {enabled: 5}", "smooth.enabled: true or false is wanted"),
        (
            "cameras: {gate: {url: a.mp4}}\ntrack: {low_threshold: 0.5}",
            "track.low_threshold: 0.5; at most detect.thr",
        ),
        *(
            (f"cameras: {{gate: {{url: a.mp4, {key}: {zero}}}}}", f"cameras.gate.{key}: input should be greater than 0")
            for key in ("max_age", "open_timeout", "read_timeout")
            for zero in ("0", "0ms")
        ),
        (
            "cameras: {gate: {url: a.mp4, read_timeout: 1h}}",
            "cameras.gate.read_timeout: input should be less than or equal to 1800 (given: '1h')",
        ),
        (
            "cameras: {gate: {url: a.mp4}}\nsinks: [{record: {segment: 10m, keep: 0}}]",
            "sinks: record.keep: input should be greater than 0 (given: 0)",
        ),
        *(
            (
                f"cameras: {{gate: {{url: a.mp4}}}}\nsinks: [{{record: {{segment: 10m, keep_bytes: {nothing}}}}}]",
                "sinks: record.keep_bytes: input should be greater than 0",
            )
            for nothing in ("0", "0GB", "0.4B")
        ),
        ("cameras: {gate: {url: a.mp4}}\nsinks: [{jsonl: 5}]", "sinks: jsonl: a mapping is wanted"),
        (
            "cameras: {gate: {url: a.mp4}}\nsinks: [{record: {size: '3'}}]",
            "record.size: a size is wanted, WIDTHxHEIGHT",
        ),
        ('cameras: {gate: {url: "${file:a\\0b}"}}', "cameras.gate.url: cannot read the secret file a"),
        ("cameras: {gate: {url: '${NOPE'}}", "cameras.gate.url: a ${ that does not end"),
        ("cameras: {gate: {url: '${CAM:-rtsp://u:${PW}@h/1}'}}", "cameras.gate.url: a ${ that does not end, or stands"),
        ("just text", "a mapping with `cameras:` is wanted"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ("jsonl: {path: 'out/{camera'}", "jsonl.path: out/{camera: a brace without its other one"),
        ("jsonl: {path: 'out/{dat}.jsonl'}", "jsonl.path: out/{dat}.jsonl: unknown field {dat}"),
        ("jsonl: {path: ' '}", "jsonl.path: empty; a path is wanted"),
        ("jsonl: {path: 'out/{date}.jsonl'}", "jsonl.path: out/{date}.jsonl: {date} and {time} are those of files"),
        ("record: {path: 'out/{time}.mp4'}", "record.path: out/{time}.mp4: {date} and {time} are those of files that roll"),
        ("record: {path: out.avi}", "record.path: out.avi: a video is written as .mp4 or .mkv"),
        ("pictures: {path: 'out/{date}'}", "pictures.path: out/{date}: {date} and {time} are those of files that roll"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_is_said_with_file_and_key(tmp_path: Path, sink: str, said: str) -> None:
    path = write(tmp_path, f"cameras: {{gate: {{url: a.mp4}}}}\nsinks: [{{{sink}}}]")
    with pytest.raises(ConfigError) as caught:
        check(path)
    assert str(caught.value).startswith(f"{path}: sinks: {said}")


def test_alike_cameras_share_their_keys(tmp_path: Path) -> None:
    text = "cameras:\n  gate: &gate {url: a.mp4, threads: 2, skip: nonref}\n  yard: {<<: *gate, url: b.mp4, skip: none}"
    cameras = load(write(tmp_path, text)).cameras
    assert [(c.url, c.threads, c.skip) for c in cameras.values()] == [("a.mp4", 2, "nonref"), ("b.mp4", 2, "none")]


def test_an_override_is_of_the_one_camera_of_several_that_share_a_section(tmp_path: Path) -> None:
    path = write(tmp_path, "cameras: {gate: &gate {url: a.mp4}, yard: *gate}")
    cameras = load(path, ["cameras.yard.url=b.mp4"]).cameras
    assert [camera.url for camera in cameras.values()] == ["a.mp4", "b.mp4"]


def test_a_default_gives_way_to_a_low_threshold(tmp_path: Path) -> None:
    config = load(write(tmp_path, "cameras: {gate: {url: a.mp4}}\ndetect: {threshold: 0.05}"))
    assert track_options(config).low_threshold == 0.05
    again = validate(config.public())  # what `check` says runs, and is the same
    assert again.track.low_threshold == 0.05


def test_a_missing_file_says_where_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration"):
        load(tmp_path / "none.yaml")


def test_overrides_reach_every_level(tmp_path: Path) -> None:
    path = write(tmp_path, "cameras: {gate: {url: a.mp4}}\nsinks:\n  - record:\n  - jsonl: {path: x.jsonl}")
    config = load(
        path, ["detect.threshold=0.5", "cameras.gate.url=b.mp4", "sinks.record.crf=30", "sinks.1.jsonl.path=y.jsonl"]
    )
    assert config.detect.threshold == 0.5
    assert config.cameras["gate"].url == "b.mp4"
    assert config.sinks[0][1].crf == 30  # type: ignore[attr-defined]
    assert config.sinks[1][1].path == "y.jsonl"  # type: ignore[attr-defined]
    assert load(path, ["cameras.gate.url=2024-99-99"]).cameras["gate"].url == "2024-99-99"  # YAML's only by its looks
    assert load(path, ["sinks=[]"]).sinks == ()
    config = load(path, ["sinks.record={crf: 28}", "sinks.jsonl=null"])
    assert [(name, sink.crf) for name, sink in config.sinks] == [("record", 28)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["[{jsonl: {path: o/{camera}.jsonl}}]", "{offline: true", "[secret%x", "{a: secret"])
def test_an_override_that_is_no_yaml_is_said_without_its_text(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "cameras: {gate: {url: a.mp4}}")
    with pytest.raises(
        ConfigError, match=r"--set sinks: a list or mapping that is not YAML from character \d+ on; quote"
    ) as caught:
        load(path, [f"sinks={text}"])
    assert "secret" not in str(caught.value)


def test_a_quoted_override_is_a_text(tmp_path: Path) -> None:
    path = write(tmp_path, "cameras: {gate: {url: a.mp4}}")
    config = load(path, ["cameras.gate.url='[1].mp4'", "sinks=[{jsonl: {path: 'o/{camera}.jsonl'}}]"])
    assert config.cameras["gate"].url == "[1].mp4"
    assert config.sinks[0][1].path == "o/{camera}.jsonl"  # type: ignore[attr-defined]


def test_an_override_of_a_sink_finds_the_default_one(tmp_path: Path) -> None:
    path = write(tmp_path, "cameras: {gate: {url: a.mp4}}")
    ((name, sink),) = load(path, ["sinks.jsonl.path=x.jsonl"]).sinks
    assert (name, sink.path) == ("jsonl", "x.jsonl")  # type: ignore[attr-defined]
    assert load(path, ["sinks.jsonl=null"]).sinks == ()
    with pytest.raises(ConfigError, match=r'--set sinks\.record\.crf: there is no "record" in the list of 1'):
        load(path, ["sinks.record.crf=28"])


def test_an_override_finds_a_camera_whose_name_has_dots(tmp_path: Path) -> None:
    path = write(tmp_path, "cameras: {front: {url: a.mp4}, front.door: {url: b.mp4}, back.door: {url: c.mp4}}")
    settings = ["front.door.threads=1", "front.door.url=d.mp4", "front.threads=2", "back.door={url: e.mp4}"]
    cameras = load(path, [f"cameras.{setting}" for setting in settings]).cameras
    assert {name: (camera.url, camera.threads) for name, camera in cameras.items()} == {
        "front": ("a.mp4", 2),
        "front.door": ("d.mp4", 1),
        "back.door": ("e.mp4", 0),
    }


def test_null_leaves_a_key_not_set(tmp_path: Path) -> None:
    text = (
        "cameras: {gate: {url: a.mp4, threads: null, user: null}}\n"
        "detect: {every: null}\npose:\ndevice: ~\ntrack: {low_threshold: null}\n"
        "sinks: [{record: {crf: null, segment: null}}, {jsonl: {path: null}}]"
    )
    plain = "cameras: {gate: {url: a.mp4}}\nsinks: [{record: {}}, {jsonl: {}}]"
    assert load(write(tmp_path, text)) == load(write(tmp_path, plain))
    again = load(write(tmp_path, f"{plain}\ndetect: {{every: 3, threshold: 0.05}}"), ["detect.every=null"])
    assert (again.detect.every, again.detect.threshold) == (1, 0.05)
    with pytest.raises(ConfigError, match=r"cameras\.gate\.url: missing"):
        load(write(tmp_path, "cameras: {gate: {url: null}}"))
    with pytest.raises(ConfigError, match=r"detect\.evry: unknown key"):
        load(write(tmp_path, f"{plain}\ndetect: {{evry: null}}"))


@pytest.mark.parametrize(
    "setting",
    [
        "jsonl.path=x.jsonl",
        "detect.threshold",
        "detect.threshold.x=1",
        "sinks.nothing.path=1",
        "sinks.nothing=null",
        "sinks.7.x=1",
        "=3",
        f"detect={'[' * 1200}{']' * 1200}",
    ],
)
def test_a_wrong_override_is_one_line(tmp_path: Path, setting: str) -> None:
    path = write(tmp_path, "cameras: {gate: {url: a.mp4}}\ndetect: {threshold: 0.4}\nsinks: [{jsonl: {}}]")
    with pytest.raises(ConfigError, match="--set"):
        load(path, [setting])


def test_variables_come_from_environment_default_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("p@ss/w%rd:\n")
    monkeypatch.setenv("THERE", "value")
    text = f"${{THERE}} ${{ABSENT:-default}} ${{file:{tmp_path}/secret}}"
    assert expand({"a": [text]}) == {"a": ["value default p@ss/w%rd:"]}
    assert expand(["$${THERE}", "a$${${THERE}$${", "$$${{"]) == ["${THERE}", "a${value${", "$${{"]
    assert expand("$$THERE") == "$$THERE", "nothing else is taken for an escape"


def test_top_level_keys_that_begin_with_x_hold_anchors(tmp_path: Path) -> None:
    text = "x-camera: &camera {skip: nonkey, user: '${ABSENT}'}\ncameras: {gate: {<<: *camera, url: a.mp4, user: me}}"
    gate = load(write(tmp_path, text)).cameras["gate"]
    assert (gate.skip, gate.user) == ("nonkey", "me")
    with pytest.raises(ConfigError, match=r"cameras\.gate\.x-a: unknown key"):
        load(write(tmp_path, "cameras: {gate: {url: a.mp4, x-a: 1}}"))


def test_credentials_are_quoted_into_the_url_and_never_shown() -> None:
    config = validate({"cameras": {"gate": {"url": "rtsp://cam/1", "user": "me", "password": "p@ss/w%rd:"}}})
    assert config.cameras["gate"].full_url == "rtsp://me:p%40ss%2Fw%25rd%3A@cam/1"
    assert "p@ss" not in repr(config)
    assert "p@ss" not in str(config.public())


@pytest.mark.parametrize(
    ("url", "keys", "full"),
    [
        ("rtsp://admin@10.0.0.2/x", {"password": "p w"}, "rtsp://admin:p%20w@10.0.0.2/x"),
        ("rtsp://admin:old@10.0.0.2/x", {"password": "new"}, "rtsp://admin:new@10.0.0.2/x"),
        ("rtsp://ad%40min:p%40ss@10.0.0.2/x", {"user": "me"}, "rtsp://me:p%40ss@10.0.0.2/x"),
        ("rtsp://admin:p@ss/w%rd@10.0.0.2/x", {"user": "me"}, "rtsp://me:p%40ss%2Fw%25rd@10.0.0.2/x"),
        ("rtsp://10.0.0.2/x", {"user": "me"}, "rtsp://me:@10.0.0.2/x"),
    ],
)
def test_what_no_key_gives_stays_the_urls_own(url: str, keys: dict[str, str], full: str) -> None:
    gate = validate({"cameras": {"gate": {"url": "rtsp://b:c@cam/2", "detect_url": url, **keys}}}).cameras["gate"]
    assert gate.analysed_url == full
    assert gate.model_copy(update={"url": url}).full_url == full


SPACED = "rtsp://admin:1234 secret@10.0.0.2:554/x"


def test_a_password_with_a_space_is_shown_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(write(tmp_path, f"cameras: {{gate: {{url: '{SPACED}', detect_url: ' {SPACED}'}}}}"))
    shown = capsys.readouterr().out
    assert shown.count("rtsp://***@10.0.0.2:554/x") == 2
    assert "secret" not in shown
    assert redact("401 for admin:1234 secret, says the server") == "401 for ***, says the server"


@pytest.mark.parametrize(
    "data",
    [
        {"cameras": SPACED},
        {"cameras": {"gate": SPACED}},
        {"cameras": {SPACED: {"url": "a.mp4"}}},
        {"cameras": {"gate": {SPACED: None}}},
        {"cameras": {"gate": {"url": "a.mp4", "policy": SPACED}}},
    ],
)
def test_an_address_in_the_wrong_place_is_not_quoted(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(data)
    assert "secret" not in str(caught.value)


def test_the_sub_stream_has_the_same_credentials() -> None:
    """Cameras ask for them on every stream; those of the keys would never have reached it."""
    keys = {"user": "me", "password": "p@ss"}
    gate = validate({"cameras": {"gate": {"url": "rtsp://cam/1", "detect_url": "rtsp://cam/2", **keys}}}).cameras[
        "gate"
    ]
    assert (gate.full_url, gate.analysed_url) == ("rtsp://me:p%40ss@cam/1", "rtsp://me:p%40ss@cam/2")
    alone = validate({"cameras": {"gate": {"url": "rtsp://cam/1", **keys}}}).cameras["gate"]
    assert alone.analysed_url == alone.full_url
    other = {"url": "rtsp://cam/1", "detect_url": "rtsp://a:b@cam/2"}
    assert validate({"cameras": {"gate": other}}).cameras["gate"].analysed_url == "rtsp://a:b@cam/2"


def test_hours_are_those_of_a_camera(tmp_path: Path) -> None:
    config = validate({"cameras": {"gate": {"url": "rtsp://cam/1", "hours": ["06:00-22:00", "23:00-01:00"]}}})
    assert hours_of("gate", config.cameras["gate"]) == Hours(((360, 1320), (1380, 60)))
    assert describe(config) == ["gate: policy latest, watched 06:00-22:00 and 23:00-01:00, to jsonl"]
    recording = validate({"cameras": {"clip": {"url": "a.mp4", "hours": ["06:00-22:00"]}}})
    with pytest.raises(ConfigError, match=r"cameras\.clip\.hours: only a live camera"):
        describe(recording)


@given(st.integers(0, 10**6), st.sampled_from([("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_durations_are_seconds(number: int, unit: tuple[str, float]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == pytest.approx(number * unit[1])


def test_sizes_are_bytes() -> None:
    assert [parse_size(text) for text in ("200GB", "5 MB", "1k", 7, "7B")] == [200 * 10**9, 5 * 10**6, 1000, 7, 7]
    assert [parse_size(text) for text in ("200GiB", "1 kib", "0.5Mi")] == [200 * 2**30, 1024, 2**19]
    for text in ("5i", "5iB", "GB"):
        with pytest.raises(ValueError, match="a size such as"):
            parse_size(text)


def test_a_config_is_frozen() -> None:
    config = validate({"cameras": {"gate": {"url": 0}}})
    assert config.cameras["gate"].url == "0"
    with pytest.raises(Exception, match="frozen"):
        config.device = "cpu"  # type: ignore[misc]
    assert isinstance(config, Config)


@pytest.mark.parametrize("value", [10**400, "9" * 400, "9" * 400 + "TB"])
@pytest.mark.parametrize("key", ["segment", "keep_bytes"])
def test_numbers_beyond_all_bounds_are_one_line(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"sinks: record\.{key}: ") as caught:
        validate({"cameras": {"gate": {"url": "a.mp4"}}, "sinks": [{"record": {"segment": "10m", key: value}}]})
    assert "\n" not in str(caught.value)
