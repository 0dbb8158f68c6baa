from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agpo.artifacts import Files
from agpo.artifacts.lease import Lease, LeaseHeld, LeaseLost, LeaseRecord
from agpo.artifacts.process import Process
from tests.agpo.artifacts.forked import run_forked


@pytest.fixture
def files(root: str) -> Files:
    return Files(root)


@pytest.fixture
def lease(files: Files) -> Iterator[Lease]:
    lease = Lease(files, "lease")
    yield lease
    lease.release()


def leave_lease(files: Files, generation: int = 1, *, machine: str = "elsewhere", age: float = 0.0) -> LeaseRecord:
    """The lease of a process that stopped renewing it ``age`` seconds ago."""
    renewed = datetime.now(UTC) - timedelta(seconds=age)
    owner = Process(host="node-7", machine=machine, pid=4321, started="99")
    record = LeaseRecord(token=uuid.uuid4().hex, owner=owner, acquired_at=renewed, renewed_at=renewed)
    files.write(f"lease/{generation:06d}.json", record.model_dump_json().encode())
    return record


def test_the_holder_may_write_and_nobody_else(files: Files, lease: Lease) -> None:
    with pytest.raises(LeaseLost, match="not held"):
        lease.check()
    lease.acquire()
    lease.check()
    other = Lease(files, "lease")
    holder = f"lease is held by process {os.getpid()} on {Process.current().host} since "
    with pytest.raises(LeaseHeld, match=f"{re.escape(holder)}.*: stop that process, or wait until it ends"):
        other.acquire()
    with pytest.raises(LeaseLost, match="not held"):
        other.check()
    lease.check()


def test_a_released_lease_is_free_at_once(files: Files, lease: Lease) -> None:
    with Lease(files, "lease") as first:
        first.check()
    with pytest.raises(LeaseLost, match="not held"):
        first.check()
    lease.acquire()
    lease.check()
    first.release()
    lease.check()


def test_leases_of_different_names_do_not_meet(files: Files, lease: Lease) -> None:
    lease.acquire()
    with Lease(files, "other") as other:
        other.check()
        lease.check()


def test_acquiring_twice_is_refused(lease: Lease) -> None:
    lease.acquire()
    with pytest.raises(LeaseHeld, match="held by this very object"):
        lease.acquire()


def test_another_machine_is_waited_for_until_its_time_is_over(files: Files, lease: Lease) -> None:
    leave_lease(files, age=60)
    with pytest.raises(LeaseHeld, match=r"process 4321 on node-7 since .*: stop that process; (60|59) s from now"):
        lease.acquire()
    leave_lease(files, age=121)
    lease.acquire()
    lease.check()


def test_a_process_that_was_superseded_finds_out(files: Files, lease: Lease) -> None:
    lease.acquire()
    leave_lease(files, generation=2)
    for write in (lease.check, lease.renew):
        with pytest.raises(LeaseLost, match="taken over by process 4321 on node-7: this process must not write"):
            write()
    lease.release()
    assert not LeaseRecord.model_validate_json(files.read("lease/000002.json")).released


def test_a_removed_lease_is_lost(files: Files, lease: Lease) -> None:
    lease.acquire()
    files.remove("lease")
    with pytest.raises(LeaseLost, match="was removed"):
        lease.check()


def test_renewal_keeps_the_lease_and_moves_its_time(files: Files, lease: Lease) -> None:
    lease.acquire()
    before = LeaseRecord.model_validate_json(files.read("lease/000001.json"))
    lease.renew()
    after = LeaseRecord.model_validate_json(files.read("lease/000001.json"))
    assert after.renewed_at > before.renewed_at
    assert after.model_copy(update={"renewed_at": before.renewed_at}) == before
    lease.check()


def test_the_lease_is_renewed_while_it_is_held(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with Lease(files, "lease", ttl=0.15):
        acquired = LeaseRecord.model_validate_json(files.read("lease/000001.json")).renewed_at
        wait_until = time.monotonic() + 10
        while LeaseRecord.model_validate_json(files.read("lease/000001.json")).renewed_at == acquired:
            assert time.monotonic() < wait_until
            time.sleep(0.01)
    released = files.read("lease/000001.json")
    time.sleep(0.2)
    assert files.read("lease/000001.json") == released


def test_a_failed_renewal_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, write = Files(tmp_path), Files.write
    failures: list[str] = []
    with Lease(files, "lease", ttl=0.15) as lease:
        acquired = LeaseRecord.model_validate_json(files.read("lease/000001.json")).renewed_at

        def fail_once(self: Files, name: str, data: bytes) -> None:
            if not failures:
                failures.append(name)
                raise ConnectionError("store unreachable")
            write(self, name, data)

        monkeypatch.setattr(Files, "write", fail_once)
        wait_until = time.monotonic() + 10
        while LeaseRecord.model_validate_json(files.read("lease/000001.json")).renewed_at == acquired:
            assert time.monotonic() < wait_until
            time.sleep(0.01)
        lease.check()
    assert failures


def test_an_unreadable_lease_is_named(files: Files, lease: Lease) -> None:
    files.write("lease/000001.json", b"{}")
    with pytest.raises(LeaseHeld, match=r"lease/000001\.json is not a lease; when no process writes there, delete it"):
        lease.acquire()


def test_a_time_that_is_no_time_is_refused(files: Files) -> None:
    with pytest.raises(ValueError, match="ttl must be above 0 seconds, got 0"):
        Lease(files, "lease", ttl=0)


def test_a_killed_holder_is_superseded_at_once(tmp_path: Path) -> None:
    files = Files(tmp_path)

    def acquire_and_die() -> None:
        Lease(files, "lease").acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_forked(acquire_and_die) == signal.SIGKILL
    with Lease(files, "lease") as lease:
        lease.check()
        assert files.names() == ["lease/000002.json"]


def test_a_reused_process_number_does_not_hold_a_lease(tmp_path: Path) -> None:
    files, me = Files(tmp_path), Process.current()
    dead = leave_lease(files).model_copy(update={"owner": me.model_copy(update={"started": "1"})})
    files.write("lease/000001.json", dead.model_dump_json().encode())
    with Lease(files, "lease") as lease:
        lease.check()


def test_who_comes_late_to_a_take_over_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the late one's look at a dead lease and its claim, others take it, release it and take it again."""
    files, create = Files(tmp_path), Files.create
    leave_lease(files, age=1000)
    holder = Lease(files, "lease")

    def create_late(self: Files, name: str, data: bytes) -> bool:
        monkeypatch.setattr(Files, "create", create)
        with Lease(files, "lease"):
            pass
        holder.acquire()
        assert files.names() == ["lease/000003.json"]
        return create(self, name, data)

    monkeypatch.setattr(Files, "create", create_late)
    with pytest.raises(LeaseHeld, match=f"process {os.getpid()}"):
        Lease(files, "lease").acquire()
    holder.check()
    assert files.names() == ["lease/000003.json"]
    holder.release()


def test_only_one_of_many_processes_takes_over(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for number in range(8):
        files = Files(tmp_path / str(number))

        def acquire_and_die(files: Files = files) -> None:
            Lease(files, "lease").acquire()
            os._exit(0)

        run_forked(acquire_and_die)
        together, outcomes = fork.Barrier(6), fork.SimpleQueue()
        children = [fork.Process(target=contend, args=(files, together, outcomes)) for _ in range(6)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert sorted(outcomes.get() for _ in children) == ["held"] * 5 + ["won"]
        assert files.names() == ["lease/000002.json"]


def contend(files: Files, together: Barrier, outcomes: SimpleQueue[str]) -> None:
    lease = Lease(files, "lease")
    together.wait(60)
    try:
        lease.acquire()
        lease.check()
        outcomes.put("won")
    except LeaseHeld:
        outcomes.put("held")
    together.wait(60)  # the winner lives until all have tried


events = st.lists(st.tuples(st.sampled_from(["acquire", "release", "renew", "die"]), st.integers(0, 3)), max_size=25)


@settings(max_examples=60)
@given(events)
def test_there_is_at_most_one_holder(events: list[tuple[str, int]]) -> None:
    """Any history of four processes: who holds the lease is who acquired it last, until it releases it or dies."""
    files = Files(f"memory://{uuid.uuid4().hex}")
    leases = [Lease(files, "lease") for _ in range(4)]
    dead: set[int] = set()
    holder: int | None = None  # the one that may write, dead or alive
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Process, "runs", lambda process: process.pid not in dead)
        for event, number in events:
            patch.setattr(Process, "current", lambda pid=number: Process(host="h", machine="m", pid=pid, started=""))
            patch.setattr(Process, "is_local", lambda process: True)
            if event == "die":
                dead.add(number)
            elif event == "release":
                leases[number].release()
                holder = None if holder == number else holder
            elif event == "renew":
                if holder == number:
                    leases[number].renew()
                else:
                    with pytest.raises(LeaseLost):
                        leases[number].renew()
            elif number not in dead and (holder is None or holder in dead):
                leases[number].release()
                leases[number].acquire()
                holder = number
            elif number not in dead:
                with pytest.raises(LeaseHeld):
                    leases[number].acquire()
            assert [other for other, lease in enumerate(leases) if is_ours(lease)] == [
                other for other in [holder] if other is not None
            ]
        for lease in leases:
            lease.release()


def is_ours(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLost:
        return False
    return True
