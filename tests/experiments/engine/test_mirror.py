"""The mirror in W&B: what it contains, read back from W&B's own files or by a server in place of W&B's, and that
nothing W&B does, or does not do, reaches the training."""

import csv
import gzip
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
import yaml
from wandb import wandb_agent
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.proto.wandb_internal_pb2 import Record

from experiments.engine import mirror_process
from experiments.engine.expand import Group
from experiments.engine.mirror import Mirror
from experiments.engine.mirror_process import Live, Worker
from experiments.engine.store import RunStore

ROOT = Path(__file__).parents[3]
KEY = "0123456789abcdef" * 3
ROWS = [(0, "test", "loss", 2.5), (0, "train", "loss", 2.25), (10, "test", "loss", math.nan)]
ROWS += [(20, "test", "rank/0.01", 3.0), (20, "test", "loss", math.inf), (20, "train", "loss", 1e-9)]


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """No account, no settings, no network."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outputs/fig4"


def mirror(folder, mode="offline"):
    return Mirror.start(mode=mode, project="p", folder=folder, experiment="fig4")


def write_run(folder, run_id, rows=ROWS, status="done", **config):
    """The directory of a finished run, as training leaves it; the records of when it trained go last."""
    place = folder / "runs" / run_id
    place.mkdir(parents=True, exist_ok=True)
    model = {"_target_": "syre.models.MLP", "hidden": [8, 8]}
    config = {"experiment": "fig4", "seed": 0, "model": model, "task": None} | config
    kept = {"git_sha": "abc", "dirty": False, "device": "cpu", "threads": 1, "versions": {"torch": "2"}, "seconds": 1.5}
    facts = {"id": run_id, "experiment": "fig4", "scale": "cpu", "status": status, "group": "g"} | kept
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    (place / "metrics.csv").write_text(as_csv(rows))
    (place / "run.json").write_text(json.dumps(facts))
    (place / "done").touch()
    records(folder, run_id).unlink(missing_ok=True)
    return config, facts


def as_csv(rows):
    lines = [f"{step},{split},{metric},{value:.9g}\n" for step, split, metric, value in rows]
    return "".join(["step,split,metric,value\n", *lines])


def alone(run_id, **config):
    """The group of a lone run, which may be seen while it trains."""
    return Group(runs=[SimpleNamespace(id=run_id, config={"seed": 0} | config)])


def records(folder, run_id):
    return RunStore(folder).records(alone(run_id).id)


def train(folder, run_id, text):
    """The records of a run that trains, as they are at some time."""
    records(folder, run_id).parent.mkdir(parents=True, exist_ok=True)
    records(folder, run_id).write_text(text)


def by_step(rows):
    steps = {}
    for step, split, metric, value in rows:
        steps.setdefault(step, {})[f"{split}/{metric}"] = value
    return steps


def equal(a, b):
    """NaN is NaN; JSON knows no difference between 3 and 3.0."""
    return a.keys() == b.keys() and all(a[step] == pytest.approx(b[step], rel=1e-8, nan_ok=True) for step in a)


def offline(folder, run_id):
    """The only file of a run, its records in order."""
    (file,) = (folder / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb")
    return list(entries(file.read_bytes()))


def entries(data):
    """A .wandb file is a LevelDB log: parts of records, in blocks of 32 KiB."""
    assert data[:7] == b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    at, whole = 7, b""
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        crc, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + 7 : at + 7 + length]
        assert crc == zlib.crc32(part, zlib.crc32(bytes([kind])))
        at, whole = at + 7 + length, whole + part
        if kind in (1, 4):  # alone, or the last of several
            yield Record.FromString(whole)
            whole = b""


def history(found):
    """step -> {key: value} of a file's records, without W&B's own keys."""
    steps = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            assert items["_step"] == record.history.step.num
            steps[items["_step"]] = {key: value for key, value in items.items() if key[0] != "_"}
    return steps


def one(found, kind):
    (record,) = (getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind)
    return record


def settings(record):
    return {item.key: json.loads(item.value_json) for item in record.update if item.key != "_wandb"}


def summary(found):
    return {key: value for record in found for key, value in settings(record.summary).items() if key}


NAMED = {"name": "syre sigma=1 gamma=0.1 seed 0", "tags": ["fig4", "cpu", "point", "random_matrix", "syre"]}

# ---- a server in place of W&B's --------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    """As much of the W&B server as a run needs: it keeps each run, and can tell what it has of one."""

    protocol_version = "HTTP/1.1"
    runs: dict  # of the class made by the fixture
    refuse = False

    def log_message(self, *_):
        pass

    def answer(self, content, code=200):
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data)
        if self.refuse:
            self.answer({"errors": [{"message": "not your key"}]}, 401)
        elif self.path.endswith("/graphql"):
            ask = {"RunResumeStatus": self.known, "UpsertBucket": self.upsert}.get(message["operationName"])
            self.answer(ask(message["variables"]) if ask else {"data": None, "errors": [{"message": "unknown"}]})
        else:
            self.stream(self.runs[self.path.split("/")[-2]], message)
            self.answer({})

    def known(self, about):
        bucket = None
        if run := self.runs.get(about["name"]):
            bucket = {"id": "b", "name": about["name"], "displayName": about["name"], "tags": [], "logLineCount": 0}
            bucket |= {"summaryMetrics": "{}", "wandbConfig": '{"t": 1}', "eventsTail": "[]", "eventsLineCount": 0}
            bucket["config"] = json.dumps({key: {"value": value} for key, value in run["config"].items()})
            bucket["historyLineCount"] = len(run["history"])
            bucket["historyTail"] = json.dumps([json.dumps(line) for line in run["history"][-1:]])
        return {"data": {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": bucket}}}

    def upsert(self, about):
        run = self.runs.setdefault(about["name"], {"history": [], "summary": {}})
        run |= {
            key: about[key] for key in ("groupName", "jobType", "displayName", "tags", "sweep", "project") if about[key]
        }
        run["config"] = {k: v["value"] for k, v in json.loads(about["config"] or "{}").items() if k != "_wandb"}
        run |= {"times": run.get("times", 0) + 1, "exit": None}
        project = {"id": "m", "name": about["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": about["name"], "displayName": about["displayName"], "description": ""}
        bucket |= {"config": "{}", "sweepName": about["sweep"], "historyLineCount": len(run["history"])}
        bucket["project"] = project
        return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}

    def stream(self, run, message):
        for name, file in message.get("files", {}).items():
            lines = [json.loads(line) for line in file["content"]]
            if name == "wandb-history.jsonl":
                run["history"][file["offset"] :] = lines
            if name == "wandb-summary.json":
                run["summary"] = lines[-1]
        if message.get("complete"):
            run["exit"] = message["exitcode"]


@pytest.fixture
def server(monkeypatch):
    handler = type("Handler", (Server,), {"runs": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "1")  # seconds; as a rule 15
        handler.stop = lambda: (running.shutdown(), running.server_close())
        yield handler
        running.shutdown()


def uploaded(run):
    """step -> {key: value} of a run that the server has; each step once, in order."""
    steps = [line["_step"] for line in run["history"]]
    assert steps == sorted(set(steps))
    return {line["_step"]: {key: value for key, value in line.items() if key[0] != "_"} for line in run["history"]}


# ---- what is mirrored ------------------------------------------------------------------------------------------------


def test_a_run_is_mirrored_with_every_record_its_whole_configuration_and_its_facts(folder, capfd):
    config, facts = write_run(folder, "aa01", long="x" * 70_000)  # over three blocks of the file
    write_run(folder, "aa02", rows=[], status="failed")
    with mirror(folder) as started:
        started.watch(["aa01", "aa02"])
    found = offline(folder, "aa01")
    assert equal(history(found), by_step(ROWS))
    assert not equal(history(found), by_step(ROWS[:-1]))
    assert not equal(history(found), by_step([*ROWS[:-1], (20, "train", "loss", 2e-9)]))
    run = one(found, "run")
    assert (run.run_id, run.display_name, run.run_group) == ("aa01", "aa01", "fig4")
    assert (run.job_type, run.project) == ("run", "p")
    kept = {key: facts[key] for key in ("id", "git_sha", "dirty", "device", "threads", "versions", "seconds")}
    assert settings(run.config) == config | {"provenance": kept}
    assert (summary(found)["status"], one(found, "exit").exit_code) == ("done", 0)
    failed = offline(folder, "aa02")
    assert (history(failed), summary(failed)["status"], one(failed, "exit").exit_code) == ({}, "failed", 1)
    assert {path.name for path in (folder / "wandb/mirrored").iterdir()} == {"aa01", "aa02"}
    assert capfd.readouterr() == ("", "")


def test_a_run_is_called_by_what_it_is_with_tags_and_its_id_stays(folder):
    """Offline; one of which nothing is said has the name of its id."""
    write_run(folder, "aa01")
    write_run(folder, "aa02")
    with mirror(folder) as started:
        started.watch(["aa01", "aa02"], called={"aa01": NAMED})
    named, other = (one(offline(folder, run_id), "run") for run_id in ("aa01", "aa02"))
    assert (named.run_id, named.display_name, list(named.tags)) == ("aa01", *NAMED.values())
    assert (other.run_id, other.display_name, list(other.tags)) == ("aa02", "aa02", [])


@pytest.mark.slow
def test_the_same_command_mirrors_nothing_twice_but_a_run_that_was_trained_again(folder):
    write_run(folder, "aa01")
    write_run(folder, "aa02", rows=ROWS[:1], status="failed")

    def again():
        with mirror(folder) as started:
            started.watch(["aa01", "aa02"])
        return {path.parent.name: path.stat().st_ino for path in folder.glob("wandb/offline-run-*/*.wandb")}

    first = again()
    assert (len(first), again()) == (2, first)
    done = (folder / "runs/aa02/done").stat().st_mtime_ns
    write_run(folder, "aa02")
    os.utime(folder / "runs/aa02/done", ns=(done, done))  # training leaves it as it is
    third = again()
    assert len(third) == 2
    assert len(first.items() & third.items()) == 1
    assert equal(history(offline(folder, "aa02")), by_step(ROWS))
    assert summary(offline(folder, "aa02"))["status"] == "done"


@pytest.mark.slow
def test_a_sweep_of_the_command_line_is_mirrored_whichever_way_it_is_packed(tmp_path, command):
    words = ("-m", "model.hidden=[8]", "train.epochs=1", "train.evaluations=2", "batched=[seed]", "wandb.mode=offline")
    places = f"outputs={tmp_path / 'outputs'}", f"results={tmp_path / 'results'}"
    outcome = command(*words, "seed=0,1,2", "replicas=2", *places)  # two at once, and one alone
    assert (outcome.code, outcome.err) == (0, "")
    folder = tmp_path / "outputs/run"
    runs = list((folder / "runs").iterdir())
    assert len(runs) == 3
    for place in runs:
        with (place / "metrics.csv").open() as file:
            rows = [(int(row[0]), row[1], row[2], float(row[3])) for row in list(csv.reader(file))[1:]]
        found = offline(folder, place.name)
        assert equal(history(found), by_step(rows))
        assert {"test/loss", "test/accuracy", "test/rank", "train/loss"} <= {*history(found)[22]}
        config = settings(one(found, "run").config)
        assert config.pop("provenance")["seconds"] > 0
        assert config == yaml.safe_load((place / "config.yaml").read_text())
        run = one(found, "run")
        assert (run.run_id, run.display_name) == (place.name, f"weight_decay seed {config['seed']}")
        assert list(run.tags) == ["run", "cpu", "mlp", "digits", "weight_decay"]


@pytest.mark.slow
def test_tables_and_pictures_are_an_artifact_that_is_complete_and_logged_again_only_when_it_changed(folder, tmp_path):
    files = [tmp_path / "results/fig4" / name for name in ("figure.png", "runs.csv")]
    files[0].parent.mkdir(parents=True)
    pixel = struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", pixel), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    image = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    files[0].write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(image))
    files[1].write_text("id,status\naa01,done\n")
    for _ in range(2):
        with mirror(folder) as started:
            started.artifact("fig4-cpu", "cpu", files)
    assert len(list(folder.glob("wandb/artifacts/staging/*"))) == len(files)
    found = offline(folder, "fig4-cpu-results")
    run, artifact = one(found, "run"), one(found, "artifact")
    assert (run.run_group, run.job_type, run.resume) == ("fig4", "results", True)
    assert (artifact.name, artifact.type, artifact.finalize) == ("fig4-cpu", "results", True)
    kept = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert {name: path.read_bytes() for name, path in kept.items()} == {path.name: path.read_bytes() for path in files}
    assert all(path.is_relative_to(folder / "wandb") for path in kept.values())  # not in a cache that may be emptied
    picture = next(path for record in found for path in (file.path for file in record.files.files))
    (stored,) = folder.glob(f"wandb/offline-run-*/files/{picture}")
    assert stored.read_bytes() == files[0].read_bytes()

    files[1].write_text("id,status\naa01,nan\n")
    with mirror(folder) as started:
        started.artifact("fig4-cpu", "cpu", files)
    changed = one(offline(folder, "fig4-cpu-results"), "artifact")
    assert changed.digest != artifact.digest


# ---- a run while it trains -------------------------------------------------------------------------------------------


CURVE = [
    (step, split, "loss", step + (split == "test") / 2) for step in range(0, 50, 10) for split in ("train", "test")
]


@pytest.mark.slow
def test_a_run_that_is_resumed_continues_its_curve_with_every_record_once(folder, server, capfd):
    first = mirror(folder, "online")
    first.watch(["aa01"], live=[alone("aa01")])
    train(folder, "aa01", as_csv(CURVE[:5]))  # it is stopped in the middle of step 20
    assert until(lambda: "aa01" in server.runs)
    first.close()
    run = server.runs["aa01"]
    assert equal(uploaded(run), by_step(CURVE[:4]))
    assert (run["exit"], "status" in run["summary"]) == (1, False)
    assert (run["config"]["seed"], run["config"]["provenance"]) == (0, {"id": "aa01"})

    assert run["displayName"] == "aa01"

    second = mirror(folder, "online")
    train(folder, "aa01", as_csv(CURVE[:2]))  # what the checkpoint has kept
    second.watch(["aa01"], live=[alone("aa01")], called={"aa01": NAMED})
    assert until(lambda: run["times"] == 2)
    train(folder, "aa01", as_csv(CURVE[:7]) + "30,te")  # a line that is being written
    assert until(lambda: len(run["history"]) == 3)
    _, facts = write_run(folder, "aa01", rows=CURVE)
    second.close()
    assert equal(uploaded(run), by_step(CURVE))
    assert (run["exit"], run["summary"]["status"], run["groupName"], run["jobType"]) == (0, "done", "fig4", "run")
    assert (run["config"]["seed"], run["config"]["provenance"]["git_sha"]) == (0, facts["git_sha"])
    assert (run["displayName"], run["tags"]) == (*NAMED.values(),)  # live, too

    times = run["times"]
    with mirror(folder, "online") as third:
        third.watch(["aa01"], live=[alone("aa01")])
    assert server.runs["aa01"]["times"] == times
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_live_run_ends_when_it_is_finished_interrupted_where_its_records_go_and_goes_on_where_they_come_again(
    folder, server, capfd
):
    write_run(folder, "bb01", rows=[], status="failed")  # before, and mirrored then
    with mirror(folder, "online") as started:
        started.watch(["bb01"])
    train(folder, "cc01", as_csv(CURVE[:2]))  # left behind, and finished in another group since
    write_run(folder, "cc01", rows=CURVE)
    train(folder, "cc01", as_csv(CURVE[:2]))
    os.utime(records(folder, "cc01"), ns=(1, 1))

    started = mirror(folder, "online")
    runs = ["aa01", "bb01", "cc01"]
    started.watch(runs, live=[alone(run_id) for run_id in runs])
    for run_id in ("aa01", "bb01"):
        train(folder, run_id, as_csv(CURVE[:6]))
    assert until(
        lambda: all(len(server.runs.get(run_id, {"history": ""})["history"]) == 2 for run_id in ("aa01", "bb01"))
    )
    assert [server.runs[run_id]["exit"] for run_id in ("aa01", "bb01")] == [None, None]
    records(folder, "aa01").unlink()  # it goes on elsewhere, from its first checkpoint
    write_run(folder, "bb01", rows=CURVE, status="nan")
    assert until(lambda: server.runs["aa01"]["exit"] == 1 and server.runs["bb01"]["exit"] == 0)
    assert "status" not in server.runs["aa01"]["summary"]
    train(folder, "aa01", as_csv(CURVE[:4]))
    assert until(lambda: server.runs["aa01"]["exit"] is None)
    train(folder, "aa01", as_csv(CURVE[:9]))
    assert until(lambda: len(server.runs["aa01"]["history"]) == 4)
    write_run(folder, "aa01", rows=CURVE)
    started.close()
    for run_id, status in {"aa01": "done", "bb01": "nan", "cc01": "done"}.items():
        run = server.runs[run_id]
        assert equal(uploaded(run), by_step(CURVE))
        assert (run["exit"], run["summary"]["status"], run["config"]["provenance"]["id"]) == (0, status, run_id)
    assert {path.name for path in (folder / "wandb/mirrored").iterdir()} == set(runs)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_run_taken_for_interrupted_because_its_directory_was_seen_late_is_mirrored_whole(folder, server):
    """On a shared disk what is written elsewhere may be seen in another order."""
    with mirror(folder, "online") as started:
        started.watch(["aa01"], live=[alone("aa01")])
        train(folder, "aa01", as_csv(CURVE[:6]))
        assert until(lambda: "aa01" in server.runs)
        records(folder, "aa01").unlink()
        assert until(lambda: server.runs["aa01"]["exit"] == 1)
        write_run(folder, "aa01", rows=CURVE)
    assert equal(uploaded(server.runs["aa01"]), by_step(CURVE))
    assert (server.runs["aa01"]["exit"], server.runs["aa01"]["summary"]["status"]) == (0, "done")


def test_a_run_that_is_finished_between_one_look_at_the_disk_and_the_next_is_not_taken_for_interrupted(
    folder, monkeypatch
):
    worker = Worker("online", "p", folder, "fig4", print, {})
    worker.watched["aa01"] = {"records": str(records(folder, "aa01")), "config": {}}
    worker.live["aa01"] = Live(SimpleNamespace(starting_step=0))
    train(folder, "aa01", as_csv(ROWS[:1]))

    def then_finish(look):
        def both(path):
            found = look(path)
            if not (folder / "runs/aa01").exists():
                write_run(folder, "aa01")
            return found

        return both

    assert worker._task("aa01", False).func == worker._follow
    for name in ("_modified", "_stamp"):
        monkeypatch.setattr(mirror_process, name, then_finish(getattr(mirror_process, name)))
    assert worker._task("aa01", False).func == worker._mirror


def test_what_wandb_has_of_a_resumed_run_is_not_sent_again_and_each_step_is_sent_once():
    sent = []
    live = Live(SimpleNamespace(starting_step=11, log=lambda values, step, commit: sent.append((step, values))))
    steps = [(0, {"a": 0}), (10, {"a": 10}), (11, {"a": 11}), (20, {"a": 20, "b": 20}), (30, {"a": 30})]
    live.send(steps[:3])
    live.send(steps[:2])  # written anew, from a checkpoint
    live.send(steps)
    live.send(steps)
    assert sent == steps[2:]


@pytest.mark.slow
@pytest.mark.parametrize("live", [True, False])
def test_under_a_sweep_agent_the_run_is_the_agents_under_our_name_and_other_runs_are_their_own(
    folder, server, tmp_path, monkeypatch, live
):
    (tmp_path / "chosen.yaml").write_text("wandb_version: 1\nregularizer.sigma: {desc: null, value: 0.5}\n")
    agent = {"SWEEP_ID": "sweep1", "RUN_ID": "agent1", "PROJECT": "theirs"}
    for name, value in (agent | {"SWEEP_PARAM_PATH": str(tmp_path / "chosen.yaml")}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    others = {f"bb{k:02}": [(step, "test", "loss", k + step) for step in range(k)] for k in range(1, 12)}
    for run_id, rows in others.items():
        config, _ = write_run(folder, run_id, rows=rows, status="nan")
    with mirror(folder, "online") as started:
        if live:
            train(folder, "aa01", as_csv(ROWS[:4]))
            started.watch(["aa01"], live=[alone("aa01")])
            assert until(lambda: "agent1" in server.runs)
        write_run(folder, "aa01")
        if not live:  # it was trained before, and the agent's run still has to have its results
            started.watch(["aa01"])
        started.watch([*others, "cc01"])
    run = server.runs.pop("agent1")
    assert equal(uploaded(run), by_step(ROWS))
    assert [run[key] for key in ("sweep", "displayName", "project")] == ["sweep1", "aa01", "theirs"]
    assert (run["config"]["regularizer.sigma"], run["config"]["provenance"]["id"]) == (0.5, "aa01")
    assert server.runs.keys() == others.keys()
    for run_id, rows in others.items():
        run = server.runs[run_id]
        assert equal(uploaded(run), by_step(rows))
        assert ("sweep" in run, run["project"], run["summary"]["status"], run["exit"]) == (False, "p", "nan", 0)
        assert config.items() <= run["config"].items()
    assert not list(folder.glob("wandb/offline-run-*"))


# ---- nothing reaches the training ------------------------------------------------------------------------------------


LITTLE = 15.0  # seconds, on a machine that does other things too; what is held up never ends


def until(true, seconds=120.0):
    """Whether something comes true in time."""
    late = time.monotonic() + seconds
    while not true():
        if time.monotonic() > late:
            return False
        time.sleep(0.02)
    return True


def all_calls(started):
    """Everything training may say, and more than a pipe holds; how long it takes to say it."""
    began = time.monotonic()
    started.watch(["aa01"])
    started.watch(["bb01"], live=[alone("bb01", odd=object(), long="x" * 1_000_000)])
    started.artifact("fig4-cpu", "cpu", [Path(__file__)])
    return time.monotonic() - began


def closing(started, patience):
    began = time.monotonic()
    started.close(patience)
    return time.monotonic() - began


@pytest.mark.parametrize("trouble", [signal.SIGSTOP, signal.SIGKILL])
def test_a_mirror_that_stands_still_or_has_died_holds_up_nothing(folder, capfd, trouble):
    write_run(folder, "aa01")
    started = mirror(folder, "online")
    started._process.send_signal(trouble)
    assert all_calls(started) < LITTLE
    assert closing(started, 1.0) < LITTLE
    assert started._process.poll() == -signal.SIGKILL
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("W&B: 0 of 2 runs are mirrored (")
    assert err.endswith("the same command mirrors the rest\n")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A function that puts a module in place of the real one, for other processes."""

    def put(name, source):
        (tmp_path / "fake").mkdir(exist_ok=True)
        (tmp_path / f"fake/{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), str(ROOT)]))

    return put


def test_a_wandb_that_never_returns_holds_up_nothing(folder, fake, capfd):
    hangs = """
        import time
        class Settings:
            def __init__(self, **_): pass
        def setup(_): pass
        def init(**_): time.sleep(1000)
    """
    fake("wandb", hangs)
    write_run(folder, "aa01")
    started = mirror(folder, "online")
    assert all_calls(started) < LITTLE
    assert closing(started, 1.0) < LITTLE
    assert capfd.readouterr().err == (
        "W&B: 0 of 2 runs are mirrored (there was no more time, 1 s); the same command mirrors the rest\n"
    )


def test_without_wandb_there_is_one_line_and_torch_is_not_needed(folder, tmp_path, fake, capfd):
    fake("wandb", "raise ImportError('it is not installed')")
    fake("torch", f"open({str(tmp_path / 'seen')!r}, 'w')")
    write_run(folder, "aa01")
    with mirror(folder, "online") as started:
        started.watch(["aa01"])
    assert capfd.readouterr().err == (
        "W&B: 1 of 1 runs are not mirrored (ImportError: it is not installed); the same command mirrors them\n"
    )
    parts = "import experiments.engine.mirror, experiments.engine.mirror_process"
    subprocess.run([sys.executable, "-c", parts], check=True)
    assert not (tmp_path / "seen").exists()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    assert (tmp_path / "seen").exists()


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["no key", "no network", "a key that is refused", "the network goes"])
def test_what_cannot_be_online_is_kept_offline_and_said_once(folder, server, capfd, monkeypatch, trouble):
    if trouble == "no key":  # and nobody is asked for one
        monkeypatch.delenv("WANDB_API_KEY")
    if trouble == "no network":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    server.refuse = trouble == "a key that is refused"
    started = mirror(folder, "online")
    train(folder, "aa01", as_csv(ROWS[:3]))
    started.watch(["aa01"], live=[alone("aa01")])
    if trouble == "the network goes":
        assert until(lambda: "aa01" in server.runs)
        server.stop()
    else:
        assert until((folder / "wandb").exists)  # W&B is told of the run
    train(folder, "aa01", as_csv(ROWS))
    for run_id in ("aa01", "aa02"):
        write_run(folder, run_id)
    started.watch(["aa02"])
    assert closing(started, 30.0) < 15
    assert started._process.poll() == 0
    for run_id in ("aa01", "aa02"):
        assert equal(history(offline(folder, run_id)), by_step(ROWS))
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("W&B: not online (")
    assert err.endswith(f"runs are kept for: wandb sync {folder / 'wandb'}\n")
    reason = {"no key": "No API key configured", "no network": "connection refused", "a key that is refused": "401"}
    assert reason.get(trouble, "Timed out") in err


def test_where_a_file_is_in_the_way_there_is_one_line(folder, capfd):
    write_run(folder, "aa01")
    (folder / "wandb").write_text("mine")
    with mirror(folder) as started:
        started.watch(["aa01"])
    err = capfd.readouterr().err
    assert err.startswith("W&B: 1 of 1 runs are not mirrored (")
    assert err.count("\n") == 1
    assert (folder / "wandb").read_text() == "mine"


def test_a_run_that_cannot_be_read_holds_up_no_other_and_is_tried_again_in_the_end(folder, capfd):
    write_run(folder, "aa01")
    write_run(folder, "aa02")
    records, started = folder / "runs/aa01/metrics.csv", mirror(folder)
    whole = records.read_text()
    records.write_text("step,split,metric,value\n0,test")
    started.watch(["aa01", "aa02"])
    assert until((folder / "wandb/mirrored/aa02").exists)
    records.write_text(whole)
    started.close()
    assert equal(history(offline(folder, "aa01")), by_step(ROWS))
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_run_for_which_the_disk_has_no_room_is_not_taken_for_mirrored(folder, capfd):
    write_run(folder, "aa01")
    write_run(folder, "aa02", rows=[(step, "test", "loss", 0.5) for step in range(1000)])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # of what the mirror may write into one file
    try:
        started = mirror(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    started.watch(["aa01", "aa02"])
    started.close()
    assert equal(history(offline(folder, "aa01")), by_step(ROWS))
    assert [path.name for path in (folder / "wandb/mirrored").iterdir()] == ["aa01"]
    assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    err = capfd.readouterr().err
    assert err.startswith("W&B: 1 of 2 runs are not mirrored (OSError: [Errno 27] File too large")
    assert err.count("\n") == 1
    with mirror(folder) as started:
        started.watch(["aa01", "aa02"])
    assert len(history(offline(folder, "aa02"))) == 1000
    assert not list(folder.glob("wandb/.partial/wandb/*"))


def test_what_wandb_was_killed_over_is_not_taken_for_mirrored(folder, monkeypatch):
    monkeypatch.setattr(wandb, "teardown", lambda: sys.exit(-9))
    worker = Worker("offline", "p", folder, "fig4", print, {})
    worker.written["aa01"] = folder / "wandb/.partial/wandb/offline-run-1-aa01", 1
    worker._settle()
    assert (worker.failed, worker.written) == ({"aa01": "SystemExit: -9"}, {})
    assert not folder.exists()


def test_runs_are_mirrored_as_they_finish_whatever_signals_come_and_to_the_end_if_the_command_is_killed(folder):
    write_run(folder, "aa01")
    command = textwrap.dedent(f"""
        import os, signal, time
        from pathlib import Path
        from experiments.engine.mirror import Mirror
        folder = Path({str(folder)!r})
        mirror = Mirror.start(mode="offline", project="p", folder=folder, experiment="fig4")
        mirror.watch(["aa01", "aa02", "aa03"])
        while not (folder / "wandb/mirrored/aa01").exists():
            time.sleep(0.02)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(mirror._process.pid, number)
        os.rename(folder / "runs/later", folder / "runs/aa02")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    write_run(folder, "later")
    write_run(folder, "aa03")
    (folder / "runs/aa03/done").unlink()  # it trains
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", command], env=environment).returncode == -signal.SIGKILL
    assert until((folder / "wandb/mirrored/aa02").exists)
    assert equal(history(offline(folder, "aa02")), by_step(ROWS))
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2


def test_there_is_no_mirror_if_none_is_wanted_and_a_line_if_it_cannot_be_started(folder, capfd, monkeypatch):
    assert mirror(folder, "disabled") is None
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert mirror(folder) is None
    assert capfd.readouterr().err.startswith("W&B: nothing is mirrored, its process does not start (FileNotFoundError")
    assert not folder.exists()


# ---- a sweep of W&B --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_sweep_of_wandb_is_one_of_our_runs_whose_metric_the_sweep_sees(tmp_path, command, server, monkeypatch):
    config = yaml.safe_load((ROOT / "scripts/wandb_sweep.yaml").read_text())
    assert _validate_config_and_fill_distribution(config) == config
    assert config.keys() <= {"project", "name", "method", "metric", "parameters", "run_cap", "program", "command"}
    assert (config["method"], config["metric"]) == ("bayes", {"name": "test/loss", "goal": "minimize"})
    for parameter in config["parameters"].values():
        assert parameter["distribution"] == "log_uniform_values"
        assert 0 < parameter["min"] < parameter["max"]
    if sweeps := sys.modules.get("sweeps"):  # where wandb[sweeps] is installed
        assert not sweeps.schema_violations_from_proposed_config(config)

    started = {}
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda **options: started.update(options) or Process())
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name, value in {"SWEEP_ID": "sweep1", "RUN_ID": "", "SWEEP_PARAM_PATH": ""}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)  # which the agent sets: to be as before in the end
    agent = wandb_agent.Agent(None, None, sweep_id="sweep1")
    agent._sweep_command = config["command"]
    chosen = {name: {"value": parameter["min"]} for name, parameter in config["parameters"].items()}
    agent._command_run({"type": "run", "run_id": "agent1", "program": config["program"], "args": chosen})
    *program, module = started["command"][:4]
    assert (program, module) == (["/usr/bin/env", "python", "-m"], "experiments.run")

    for name, value in started["env"].items():
        monkeypatch.setenv(name, value)
    words = [*started["command"][4:], "train.epochs=1", "train.evaluations=2", "model.hidden=[8]"]
    outcome = command(*words, f"outputs={tmp_path / 'outputs'}")
    assert (outcome.code, outcome.err) == (0, "")
    (place,) = (tmp_path / "outputs/run/runs").iterdir()
    run = server.runs["agent1"]
    name = f"syre sigma={chosen['regularizer.sigma']['value']:g}"
    assert (run["sweep"], run["exit"], run["config"]["provenance"]["id"]) == ("sweep1", 0, place.name)
    assert run["displayName"].startswith(name)
    assert config["metric"]["name"] in run["summary"]
    assert [step for step, values in uploaded(run).items() if "test/loss" in values] == [0, 11, 22]
    assert {name: run["config"][name] for name in chosen} == {name: item["value"] for name, item in chosen.items()}
    assert run["config"]["regularizer"]["sigma"] == chosen["regularizer.sigma"]["value"]


class Process:
    """Of an agent: what it has started."""

    last_sigterm_time = None
