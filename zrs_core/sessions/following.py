"""What a secondary knows over all its connections, and when it connects again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..addresses import Address
from ..backoff import Backoff
from ..codec.dialects import ZRS_2_0, ZRS_2_1
from ..errors import NotWritten, OtherHistory, UsedAfterFork
from ..files_fault import FilesFault
from ..interfaces import ISearchableSink, ITransactionSink
from ..logs import event
from ..messages import NO_TID
from ..options import ClientOptions
from ..progress import Divergence, Progress, State
from ..reasons import same_kind
from ..status.lag import secondary_status
from ..status.rates import Meter
from ..status.state import SecondaryStatus
from ..tids import describe_tid
from . import search as searches
from .check import Doubt
from .log import PeerLog
from .patience import Patience
from .times import SecondaryTimes

if TYPE_CHECKING:
    from ..visibility import Visibility

log = logging.getLogger("zrs_core.secondary")

# Seconds between attempts to connect of a secondary that has stopped for good.
_STOPPED_DELAY = 3600.0

# The longest time in seconds between two connections of a search.
_LONGEST_PROBE_DELAY = 1.0

#: So many sessions that fail in a row are an alarm: from then on, the longest delay lies between
#: two attempts.
ALARM_AFTER = 5


class Following:
    """The state of a secondary over all its sessions, which report to it.

    It decides when to connect again, when to search for the last common transaction, what is news
    for the log, and when a failure is over.

    :param committed: called when transactions have been applied.
    :param check_files: returns why the storage's files cannot be written to, None if they can.
        It must not wait.
    :param visibility: decides which transactions readers see; None if they see all.
    :param times: seconds that no option sets.
    """

    def __init__(
        self,
        sink: ITransactionSink,
        address: Address,
        reactor: object = None,
        options: ClientOptions | None = None,
        committed: Callable[[], object] = lambda: None,
        check_files: Callable[[], str | None] = lambda: None,
        visibility: Visibility | None = None,
        times: SecondaryTimes | None = None,
    ) -> None:
        options = options or ClientOptions()
        self.sink = sink
        self.times = times or SecondaryTimes()
        self._committed = committed
        self._visibility = visibility
        self.max_record_size = options.max_record_size
        #: The name of this secondary.
        self.name = options.node_name()
        self.address = address
        self.reactor = reactor
        self.tls = options.tls
        self.peer_timeout = options.peer_timeout
        self.checksums = options.policy()
        self.max_compared_size = options.max_compared_size
        self.keep_alive_delay = options.keep_alive_delay
        self.connect_timeout = self.times.connect
        #: How long sessions wait for a message to become complete.
        self.patience = Patience(options.peer_timeout)
        #: Why the next session is not to compare.
        self.doubt: Doubt | None = None
        self.progress = Progress(self._position())
        self.progress.incomplete = visibility is not None and visibility.incomplete
        #: What has come, by the second.
        self.meter = Meter()
        #: The protocol word that sessions ask for.
        self.protocol = ZRS_2_1.word if sink.blobs else ZRS_2_0.word
        self._files = FilesFault(self.progress, check_files)
        self._backoff = Backoff(*options.reconnect_bounds())
        self._probe_delay = min(options.reconnect_bounds()[0], _LONGEST_PROBE_DELAY)
        # The search for the last common transaction; the address and the last transaction here
        # for which the last one was made, and what it has found.
        self._search: searches.Search | None = None
        self._searched: tuple[Address, bytes] | None = None
        self._found: str | None = None
        self._difference: OtherHistory | None = None
        #: Sessions in a row that the primary has ended soon, without sending anything new.
        self.early_ends = 0
        # Attempts to connect that failed since the last one that did not.
        self._failed_attempts = 0
        self._failed_comparing = False

    def status(self, transport: str) -> SecondaryStatus:
        """How it is going now. For any thread."""
        self.check_files()
        return secondary_status(
            self.progress,
            self.meter,
            name=self.name,
            primary_address=str(self.address),
            transport=transport,
            tls=self.tls is not None,
            protocol=self.protocol,
            # Not every sink counts them.
            blobs_written=getattr(self.sink, "blobs_written", 0),
            missing_blobs=getattr(self.sink, "missing_blobs", 0),
        )

    def follow(self, address: Address) -> None:
        """Connect to the primary at another address from now on."""
        self.address = address
        self._set_search(None)
        self._searched = self._found = None
        self.progress.follows_another()

    def connected(self, local_address: str | None) -> None:
        """There is a connection.

        :param local_address: this end, as the primary names it, if that is known.
        """
        if self._failed_attempts and not self.failing:
            log.info(
                "%s: connected again after %d failed attempt(s)",
                self.address,
                self._failed_attempts,
                extra=self._event("connected-again", failures=self._failed_attempts),
            )
        self._failed_attempts = 0
        self.progress.connections += 1
        self.progress.found(local_address)
        self._set_connected(True)

    @property
    def current_search(self) -> searches.Search | None:
        """The search that the next session goes on with; None if there is none."""
        return self._search

    def search(self, difference: OtherHistory | None = None) -> bool:
        """Have the next sessions find the last transaction that the primary holds too.

        :param difference: what the comparison of the last transaction has shown.
        :returns: False if they cannot, or if that was done already for this primary and for the
            last transaction here.
        """
        sink = self.sink
        if not ISearchableSink.providedBy(sink):
            return False
        key = self.address, sink.last_tid()
        if key == self._searched:
            return False
        self._searched, self._found, self.progress.divergence = key, None, None
        self._difference = difference
        sent = None if difference is None else difference.sent
        try:
            search = searches.Search(sink.history, sent=sent)
        except Exception as error:  # noqa: BLE001
            self.search_failed(f"cannot read what is held: {error}")
            return False
        log.info(
            "%s: the primary does not hold the last transaction here as it is; searching for the "
            "last one that both hold",
            self.address,
            extra=self._event("searching"),
        )
        self._set_search(search)
        return True

    def _set_search(self, search: searches.Search | None) -> None:
        self._search = search
        self.progress.searching = search is not None

    @property
    def found(self) -> str | None:
        """What the search has found for the last transaction here, in words; None for nothing."""
        return self._found if self._searched == (self.address, self.sink.last_tid()) else None

    def search_failed(self, reason: str) -> None:
        """The search cannot go on."""
        self._set_search(None)
        self._searched = None
        if self.session_failed(reason):
            log.error("%s: %s", self.address, reason, extra=self._event("failing", reason=reason))

    def probed(self, search: searches.Search, reason: str, peer_log: PeerLog) -> None:
        """A session of a search is closed."""
        if self._search is search and search.over:
            found = search.result
            if found is not None:
                self._diverged(found, peer_log)
            self._set_search(None)
        self.progress.last_error = reason
        self._set_connected(False)

    def _diverged(self, found: searches.Divergence, peer_log: PeerLog) -> None:
        self.progress.divergence = Divergence(found.common, found.alone)
        what = ""
        if found.sent == NO_TID:
            what = ", and the primary has nothing after it"
        elif found.sent is not None:
            what = f", and the primary sends {describe_tid(found.sent)}"
        if self._difference is not None and found.sent == self._difference.sent:
            what += f", {self._difference.what}"
        self._found = _describe(found, self.sink.last_tid(), what)
        self.session_failed(self._found, State.DIVERGED)
        fields = event("diverged", reason=self._found, common=found.common, count=found.alone)
        peer_log.error("%s", self._found, extra=fields)

    @property
    def failing(self) -> bool:
        """Whether the last session failed, and none has got anywhere since."""
        return self.progress.failure is not None

    def check_files(self) -> str | None:
        """Return why the storage's files cannot be written to, None if they can.

        Until they can again the state is `failing`. For any thread.
        """
        return self._files.check()

    def abandon(self, error: UsedAfterFork) -> None:
        """Say that nothing is replicated in the child of a fork (see `forks`)."""
        progress = self.progress
        self._files = FilesFault(progress, lambda: None)
        progress.connected = False
        progress.stopped, progress.state, progress.failure = error, State.STOPPED, str(error)
        progress.last_error = str(error)
        progress.failed(str(error))

    def take_doubt(self) -> Doubt | None:
        """Return why the session that asks is not to compare; those after it may."""
        doubt, self.doubt = self.doubt, None
        return doubt

    def greeted(self, *, sure: bool) -> None:
        """A session has asked for transactions; `sure` if they are applied as they come."""
        if not self.failing:
            self.progress.state = State.REPLICATING if sure else State.COMPARING

    def served(self) -> None:
        """The primary has nothing to send, and has not hung up as one does that refuses."""
        if self.progress.state in (State.REFUSED, State.FAILING):
            self._recovered()
        elif not self.failing:
            self.progress.recovered()

    def compared(self) -> None:
        """The primary holds what is held here."""
        if self._failed_comparing or self.progress.state in (State.REFUSED, State.DIVERGED):
            self._recovered()
        self._searched = self._found = None
        if not self.failing:
            self.progress.state = State.REPLICATING
            self.progress.recovered()
            if not self.early_ends:
                self._backoff.succeeded()

    def session_failed(
        self, reason: str, state: State = State.FAILING, *, comparing: bool = False
    ) -> bool:
        """Note that a session failed; True if the one before it did not fail for this reason.

        :param comparing: True if it failed before the end of its comparison, so that one that
            succeeds is the end of the failure.
        """
        progress = self.progress
        self._failed_comparing = comparing
        news = progress.failure is None or same_kind(reason) != same_kind(progress.failure)
        progress.failure, progress.state = reason, state
        progress.failed(reason)
        progress.failures += 1
        if progress.failures == ALARM_AFTER:
            self._backoff.exhausted()
            log.error(
                "%s: %d sessions in a row have failed for the reason above, and nothing was "
                "applied; will go on trying with the longest delay",
                self.address,
                progress.failures,
                extra=self._event("still-failing", failures=progress.failures, reason=reason),
            )
        return news

    def stop(self, error: NotWritten) -> None:
        """The disk has failed: nothing is asked for any more."""
        self.progress.stopped = error
        self.session_failed(f"stopped for good: {error}", State.STOPPED)

    def _event(self, name: str, **fields: object) -> dict[str, object]:
        known = {"peer": self.address, "tid": self.progress.tid, "secondary": self.name}
        return event(name, **known, **fields)

    def _recovered(self) -> None:
        progress = self.progress
        if self.failing:
            log.info(
                "%s: replicating again after %d failed session(s)",
                self.address,
                progress.failures,
                extra=self._event("replicating-again", failures=progress.failures),
            )
        self._failed_comparing = False
        self._searched = self._found = progress.divergence = None
        progress.recovered()
        self.early_ends = 0
        progress.failure = None
        progress.failures = 0
        progress.state = State.REPLICATING

    def applied(self, transactions: int, tid: bytes, begun: bytes) -> None:
        """A session has applied so many transactions, up to `tid`: all can see them.

        :param begun: the last one that it has received in part at least.
        """
        if not transactions:
            return
        self.meter.add(transactions, 0)
        held = self._note_incomplete()
        if held is None:
            self.progress.applied(transactions, tid, begun)
        else:
            self.progress.held_back(transactions, held)
        if self._backoff.failures:
            self._backoff.succeeded()
        self._recovered()
        self._committed()

    def aborted(self) -> None:
        """A session has given up what is not visible; some may be that it has not told of."""
        self._note_incomplete()
        last = self._position()
        if last > self.progress.tid:
            self.progress.tid = last
            self._committed()

    def _position(self) -> bytes:
        """Return the last transaction that readers see."""
        held = None if self._visibility is None else self._visibility.held
        return self.sink.last_tid() if held is None else held

    def packed_begins(self, tid: bytes) -> None:
        """A transaction that a pack has marked begins to come."""
        if self._visibility is not None:
            self._visibility.packed_begins(tid)

    def settle(self) -> None:
        """Show what is held back: the primary has nothing more to send. This may wait."""
        if self._visibility is not None and self._visibility.settle():
            self.progress.caught_up(self.sink.last_tid())
            self._note_incomplete()
            self._committed()

    def _note_incomplete(self) -> bytes | None:
        """Note in `progress` if a run is incomplete; return `held` of the visibility."""
        visibility, progress = self._visibility, self.progress
        if visibility is None:
            return None
        held, incomplete = visibility.held, visibility.incomplete
        if incomplete == progress.incomplete:
            return held
        progress.incomplete = incomplete
        if incomplete:
            log.info(
                "%s: receives what a pack of the primary has left; not ready before all of it has "
                "come%s",
                self.address,
                "" if held is None else f", and readers see the state of {describe_tid(held)}",
                extra=self._event("pack-incomplete"),
            )
        else:
            log.info(
                "%s: has received all that a pack of the primary has left",
                self.address,
                extra=self._event("pack-complete"),
            )
        return held

    def disconnected(self, reason: str, *, news: bool) -> None:
        """A session has lost its connection; `news` if nothing was told of why before."""
        self._set_connected(False)
        self.progress.last_error = reason
        if news:
            self.progress.failed(reason)
        self._backoff.failed()

    def _set_connected(self, connected: bool) -> None:
        self.progress.connected = connected
        if not (connected or self.failing):
            self.progress.state = State.CONNECTING

    def connection_failed(self, reason: str) -> None:
        self.progress.failed(reason)
        # Once is news; the attempts after it are not.
        news = not self._failed_attempts
        self._failed_attempts += 1
        self._backoff.failed()
        self._cannot_connect(reason, news=news)

    def refused(self, reason: str) -> None:
        """The primary has refused the certificate of a session, which counts for the back-off."""
        self._cannot_connect(reason, news=self.session_failed(reason))

    def _cannot_connect(self, reason: str, *, news: bool) -> None:
        self.progress.last_error = reason
        level = logging.WARNING if news else logging.DEBUG
        log.log(
            level,
            "%s: cannot connect (%s); will keep trying",
            self.address,
            reason,
            extra=self._event("cannot-connect", reason=reason),
        )

    def retry_delay(self) -> float:
        if self.progress.stopped is not None:
            # There is nothing to be asked for any more.
            return _STOPPED_DELAY
        if self.check_files() is not None:
            return self.times.lost
        return self._backoff.delay() if self._search is None else self._probe_delay


def _describe(found: searches.Divergence, last: bytes, what: str) -> str:
    """Where histories part, for people."""
    alone = f"{found.alone:,} transaction{'' if found.alone == 1 else 's'}"
    if found.common is not None:
        where = f"the last transaction that both hold is {describe_tid(found.common)}. After it,"
    elif found.complete:
        where = "the two have no transaction in common, and"
    else:
        where = f"the two have none of the last {alone} here in common, and"
    return (
        f"the histories have diverged: {where} this secondary holds {alone}, up to "
        f"{describe_tid(last)}, that the primary does not have{what}. Nothing was applied. Check "
        "the address; to go on from this primary, keep the secondary's files if their newest "
        "transactions matter, and replicate into an empty storage"
    )
