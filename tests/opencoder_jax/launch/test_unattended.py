"""Whatever the cloud does, in 1,000 orders: a launch ends, trained or with a clear error, and deletes only its own."""

import os
import pickle
import sys
from pathlib import Path

import pytest

from opencoder_jax.launch import cloud_tpu, unattended
from opencoder_jax.launch.cloud_tpu import NODES, REQUESTS, QueuedResource, Slice
from opencoder_jax.launch.gcloud import Done, Gcloud, GcloudError, execute
from opencoder_jax.launch.launch import run
from opencoder_jax.launch.unattended import Bounds, Clock, Goal, Job, Training
from opencoder_jax.recipe import TryAgain, UserError
from tests.opencoder_jax.launch.fake_cloud import FATAL_ERRORS, PASSING_ERRORS, SSH_ERROR, Cloud

PLACE = Slice("oc", "us-east5-a", "v6e-16")
DAY = 24 * 3600.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cloud_tpu, "user", lambda: "me")


def training(cloud: Cloud, limits: Bounds, gcloud: Gcloud | None = None) -> Training:
    job = Job(Path("code.tar.gz"), "1234abcd", ["train", "--hosts=auto"])
    return Training(PLACE, job, limits, gcloud or Gcloud(cloud.execute), Clock(cloud.now, cloud.sleep))


def end_of(cloud: Cloud, limits: Bounds, gcloud: Gcloud | None = None) -> tuple[str, str]:
    """Launches; returns how it ended: "trained", or the class and the words of an error."""
    try:
        run(training(cloud, limits, gcloud))
    except (UserError, TryAgain) as error:
        return type(error).__name__, str(error)
    return "trained", ""


@pytest.mark.parametrize("orders", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_all_orders_end_and_delete_nothing_of_others(orders: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended.Training, "_say", lambda self, words: setattr(self, "_last", words))
    ends: dict[str, int] = {}
    seen: set[str] = set()
    limits = Bounds(restarts=20, wait=2 * DAY, poll=300)
    for seed in range(orders):
        cloud = Cloud(seed)
        end, words = end_of(cloud, limits)
        ends[end] = ends.get(end, 0) + 1
        seen |= cloud.seen
        assert not cloud.sins, (seed, cloud.sins)
        assert end != "trained" or cloud.trained, seed
        assert end == "trained" or (words.startswith(("oc: ", "gcloud compute tpus")) and len(words) > 30), words
        # The longest: each loss as late as can be, after a training of a day or two.
        assert cloud.time < (limits.restarts + 2) * (limits.wait + 3 * DAY), seed
        # What it made it gave back, unless gcloud refused.
        if end in ("trained", "Ended", "TryAgain") and cloud.label == "me" and not cloud.fatal:
            assert cloud.request in ("", "DELETING") or "couldn't be deleted" in words, seed
    assert set(ends) == {"trained", "UserError", "Ended", "TryAgain"}
    assert ends["trained"] > 0.3 * orders
    assert seen == set(REQUESTS) | {f"node {state}" for state in NODES}


def test_with_a_gcloud_on_the_path_it_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with a gcloud on the PATH."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f"#!{sys.executable}\nfrom tests.opencoder_jax.launch.fake_cloud import main\nmain()\n")
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    monkeypatch.setenv("FAKE_CLOUD", str(tmp_path / "cloud"))
    for seed in range(2):
        (tmp_path / "cloud").write_bytes(pickle.dumps(Cloud(seed, step=7200)))
        end, _ = end_of(Cloud(seed), Bounds(restarts=2, wait=DAY, poll=7200), Gcloud(execute))
        cloud = pickle.loads((tmp_path / "cloud").read_bytes())
        assert not cloud.sins
        assert end != "trained" or cloud.trained


class Quiet(Cloud):
    """A cloud in which nothing happens by itself, but trainings that end after an hour as `endings` says."""

    def __init__(self, *endings: str, request: str = "", label: str = "me", hosts: int = 2) -> None:
        super().__init__(0, hosts)
        self.trouble = self.errors = self.fatal = 0.0
        self.sticky, self.plan = False, list(endings)
        self._make(label, request)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)

    def execute(self, command: list[str], limit: float) -> Done:
        self.endings = self.plan[:1] or ["0"]
        done = super().execute(command, limit)
        if "setsid" in command[-1]:
            self.plan = self.plan[1:]
            for host in self.hosts:
                host["ends"] = min(host["ends"], self.time + 3600)
        return done

    def created(self) -> int:
        return self.asked.count("create")


@pytest.mark.parametrize("state", [state for state in REQUESTS if state != "ACTIVE"])
@pytest.mark.parametrize("when", ["before", "while it runs"])
def test_each_state_of_a_request_leads_to_a_training(state: str, when: str) -> None:
    cloud = Quiet("hang", "0") if when == "while it runs" else Quiet("0", request=state)
    if when == "while it runs":
        it = training(cloud, Bounds())
        it.until(Goal.STARTED)
        cloud.request = state
        if state != "STATE_UNSPECIFIED":
            cloud.hosts = []
        cloud.plan = ["0"]
    assert end_of(cloud, Bounds())[0] == "trained"
    assert cloud.time < DAY


@pytest.mark.parametrize("state", [state for state in NODES if state != "READY"])
def test_each_state_of_a_node_leads_to_a_training(state: str) -> None:
    cloud = Quiet("0", "0")
    training(cloud, Bounds()).until(Goal.STARTED)
    cloud.node, cloud.hosts = state, [dict(host, ready=False, state="idle") for host in cloud.hosts]
    assert end_of(cloud, Bounds())[0] == "trained"
    assert cloud.created() == 1 + (
        NODES[state] is cloud_tpu.Meaning.LOST or state in ("STOPPING", "HIDING", "DELETING")
    )


def test_a_state_that_never_passes_is_replaced() -> None:
    cloud = Quiet("0", "0")
    training(cloud, Bounds()).until(Goal.STARTED)
    cloud.node = "A_STATE_OF_NEXT_YEAR"
    assert (end_of(cloud, Bounds())[0], cloud.created()) == ("trained", 2)
    assert cloud.time < 3 * unattended.PATIENCE + DAY / 2


def test_a_reboot_is_set_up_again() -> None:
    cloud = Quiet("0", "0")
    it = training(cloud, Bounds())
    it.until(Goal.STARTED)
    cloud.hosts[1].update(ready=False, state="idle")
    it.until(Goal.TRAINED)
    assert (cloud.asked.count("scp"), cloud.created()) == (2, 1)


def test_a_training_that_hangs_is_started_again() -> None:
    cloud = Quiet("hang", "0")
    assert end_of(cloud, Bounds())[0] == "trained"
    assert cloud.time > unattended.PATIENCE


@pytest.mark.parametrize("label", ["", "somebody"])
@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_what_others_made_is_not_deleted(state: str, label: str) -> None:
    cloud = Quiet(request=state, label=label)
    with pytest.raises(UserError, match=r"this launcher didn't make it.* queued-resources delete oc"):
        run(training(cloud, Bounds()))
    assert "delete" not in cloud.asked


def test_a_slice_of_others_is_trained_on_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    cloud = Quiet(request="ACTIVE", label="")
    assert end_of(cloud, Bounds())[0] == "trained"
    assert cloud.request == "ACTIVE"
    assert "it stays" in capsys.readouterr().err


def test_a_defect_ends_it_with_the_log_and_gives_the_slice_back() -> None:
    cloud = Quiet("2")
    with pytest.raises(unattended.Ended, match=r"w-0 with exit code 2.*oc.failed.log"):
        run(training(cloud, Bounds()))
    assert cloud.request in ("", "DELETING")
    assert Path("oc.failed.log").exists()


def test_another_training_is_left_alone() -> None:
    cloud = Quiet("0")
    training(cloud, Bounds()).until(Goal.STARTED)
    for host in cloud.hosts:
        host["code"] = "other"
    with pytest.raises(UserError, match="it runs other code"):
        run(training(cloud, Bounds()))
    assert cloud.hosts[0]["state"] == "running"


def test_given_again_it_goes_on_watching() -> None:
    cloud = Quiet("0")
    training(cloud, Bounds()).until(Goal.STARTED)
    assert end_of(cloud, Bounds())[0] == "trained"
    assert (cloud.asked.count("scp"), cloud.created()) == (1, 1)


def test_no_capacity_ends_the_wait() -> None:
    cloud = Quiet(request="WAITING_FOR_RESOURCES")
    cloud.sticky = True
    with pytest.raises(TryAgain, match=r"no training has run for 48 hours .it was WAITING_FOR_RESOURCES"):
        run(training(cloud, Bounds(wait=2 * DAY)))
    assert cloud.request in ("", "DELETING")


@pytest.mark.parametrize("error", [*PASSING_ERRORS, SSH_ERROR])
def test_an_error_that_passes_is_tried_again(error: tuple[str, int]) -> None:
    answers = [Done(error[1], "", f"ERROR: (gcloud) {error[0]}")]
    cloud = Quiet("0")
    gcloud = Gcloud(lambda command, limit: answers.pop() if answers else cloud.execute(command, limit))
    assert end_of(cloud, Bounds(), gcloud)[0] == "trained"


@pytest.mark.parametrize("error", FATAL_ERRORS)
def test_an_error_for_good_is_told_at_once(error: tuple[str, int]) -> None:
    cloud = Quiet("0")
    gcloud = Gcloud(lambda command, limit: Done(error[1], "", f"ERROR: (gcloud) {error[0]}"))
    with pytest.raises(UserError, match=error[0].partition(":")[0]):
        run(training(cloud, Bounds(), gcloud))
    assert cloud.time == 0


def test_a_command_that_hangs_is_cut_off_with_what_it_started(tmp_path: Path) -> None:
    gcloud = tmp_path / "gcloud"
    gcloud.write_text("#!/bin/sh\necho half\nsleep 60 &\nsleep 60\n")
    gcloud.chmod(0o755)
    done = execute([str(gcloud)], 0.3)
    assert (done.code, done.out) == (124, "half\n")
    with pytest.raises(GcloudError) as error:
        Gcloud(lambda command, limit: done)(PLACE.node())
    assert error.value.passes
    assert error.value.printed == "half\n"


def test_a_request_is_ours_only_by_its_label() -> None:
    ours = '{"state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": [{"node": {"labels": {"opencoder-jax": "me"}}}]}}'
    assert QueuedResource.parse(ours) == QueuedResource("ACTIVE", True)
    assert QueuedResource.parse(ours.replace('"me"', '"you"')) == QueuedResource("ACTIVE", False)
    assert QueuedResource.parse('{"state": {"state": "ACTIVE"}}') == QueuedResource("ACTIVE", False)
    assert QueuedResource.parse("") == QueuedResource()
