"""One writer at a time for what lies below a folder, such as the journal of a run."""

from __future__ import annotations

import logging
import threading
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from agpo.artifacts.files import Files
from agpo.artifacts.process import Process

logger = logging.getLogger(__name__)


class LeaseHeld(RuntimeError):
    """Another writer holds the lease."""


class LeaseLost(RuntimeError):
    """The lease is not, or no longer, ours: whoever holds it writes, we must not."""


class LeaseRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    owner: Process
    acquired_at: AwareDatetime
    renewed_at: AwareDatetime
    released: bool = False


class Lease:
    """The right to write, held by one process.

    Every holder has a generation: a file ``<name>/000003.json``, created exclusively. The highest one is the lease. It
    is never deleted, only superseded or marked released, so generations never start again and a process that was
    superseded finds out. A take-over is the creation of the next generation, which only one process can do; who then
    finds a still higher one was late and gives way.

    On the holder's own machine (the same boot and container) the lease goes over as soon as the holder's process is
    gone, and never while it runs. From another machine it goes over after ``ttl`` seconds without renewal, by clocks
    that must agree well within ``ttl``. While it is held a thread renews it three times per ``ttl``.

    Two writers at once are excluded as far as `Files.create` is exclusive: on local folders and on object stores with
    conditional writes. Between `check` and the write that follows it nothing is: a holder that sleeps longer than
    ``ttl`` just there and is superseded from another machine can still write once.
    """

    def __init__(self, files: Files, name: str, ttl: float = 120.0) -> None:
        if ttl <= 0:
            raise ValueError(f"ttl must be above 0 seconds, got {ttl}")
        self.files = files.child(name)
        self.ttl = ttl
        self._token: str | None = None
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Become the holder, or raise `LeaseHeld` that says who is."""
        if self._token is not None:
            raise LeaseHeld(f"{self.files.uri} is held by this very object: release it before acquiring it again")
        moment = datetime.now(UTC)
        record = LeaseRecord(token=uuid.uuid4().hex, owner=Process.current(), acquired_at=moment, renewed_at=moment)
        while True:
            generation, holder = self._latest()
            if holder is not None:
                self._refuse_if_alive(holder)
            ours = generation + 1
            if not self.files.create(_file(ours), _encode(record)):
                continue
            if self._latest()[0] == ours:
                break
            self.files.remove(_file(ours))  # it had been taken, released and superseded since we looked
        self._token = record.token
        for superseded in (number for number in self._generations() if number < ours):
            self.files.remove(_file(superseded))
        self._ended.clear()
        self._thread = threading.Thread(target=self._keep_renewing, name="agpo-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is ours; to be called before every write that it protects."""
        self._own()

    def renew(self) -> None:
        """Tell other machines that the holder is alive; raise `LeaseLost` when the lease is not ours."""
        with self._renewing:
            generation, record = self._own()
            self._rewrite(generation, record, renewed_at=datetime.now(UTC))

    def release(self) -> None:
        """Let the next one in at once. Does nothing when the lease is not ours."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._renewing, suppress(LeaseLost):
            generation, record = self._own()
            self._rewrite(generation, record, released=True)
        self._token = None

    def _own(self) -> tuple[int, LeaseRecord]:
        if self._token is None:
            raise LeaseLost(f"{self.files.uri} is not held: acquire it first")
        generation, holder = self._latest()
        if holder is None:
            raise LeaseLost(f"{self.files.uri} was removed: this process must not write any more; run again")
        if holder.token != self._token:
            raise LeaseLost(
                f"{self.files.uri} was taken over by process {holder.owner.pid} on {holder.owner.host}: "
                "this process must not write any more"
            )
        return generation, holder

    def _latest(self) -> tuple[int, LeaseRecord | None]:
        """The highest generation and its record; 0 and None when there is none."""
        while True:
            generation = max(self._generations(), default=0)
            if generation == 0:
                return 0, None
            try:
                data = self.files.read(_file(generation))
            except FileNotFoundError:
                continue  # superseded since it was listed
            try:
                return generation, LeaseRecord.model_validate_json(data)
            except ValidationError as error:
                raise LeaseHeld(
                    f"{self.files.uri}/{_file(generation)} is not a lease; when no process writes there, delete it"
                ) from error

    def _generations(self) -> set[int]:
        stems = (name.removesuffix(".json") for name in self.files.names())
        return {int(stem) for stem in stems if stem.isdigit()}

    def _refuse_if_alive(self, holder: LeaseRecord) -> None:
        if holder.released:
            return
        owner = holder.owner
        if owner.is_local():
            if not owner.runs():
                return
            remedy = "stop that process, or wait until it ends"
        else:
            age = (datetime.now(UTC) - holder.renewed_at).total_seconds()
            if age > self.ttl:
                return
            remedy = f"stop that process; {self.ttl - age:.0f} s from now, unless renewed, the lease can be taken over"
        raise LeaseHeld(
            f"{self.files.uri} is held by process {owner.pid} on {owner.host} since "
            f"{holder.acquired_at.isoformat(timespec='seconds')}: {remedy}, and run again"
        )

    def _rewrite(self, generation: int, record: LeaseRecord, **changes: object) -> None:
        self.files.write(_file(generation), _encode(record.model_copy(update=changes)))

    def _keep_renewing(self) -> None:
        while not self._ended.wait(self.ttl / 3):
            try:
                self.renew()
            except LeaseLost:
                return  # the holder learns it from its next check
            except Exception:  # an unreachable store may be back by the next time
                logger.warning("could not renew the lease %s", self.files.uri, exc_info=True)


def _file(generation: int) -> str:
    return f"{generation:06d}.json"


def _encode(record: LeaseRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()
