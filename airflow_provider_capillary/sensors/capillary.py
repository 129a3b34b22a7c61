# SPDX-License-Identifier: Apache-2.0
"""Sensors that wait for an upload of redeemed coupons, or of coupons."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import pendulum

from airflow_provider_capillary._airflow_compat import (
    TRIGGERER_RENDERS_TEMPLATES,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_provider_capillary._copying import ResetOperatorOnCopy
from airflow_provider_capillary._polling.stored_failures import StoredFailures
from airflow_provider_capillary._polling.templates import stored_argument
from airflow_provider_capillary._transport.connections import undefined_connection
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError
from airflow_provider_capillary.api.timing import BACKSTOP_SECONDS, LookupTimes
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM
from airflow_provider_capillary.api.values import read_flag, read_seconds, refuse_nothing
from airflow_provider_capillary.api.wait_log import WaitTimes
from airflow_provider_capillary.api.waiting import JobWaiter, WaitOptions, WaitOutcome, validate_selector
from airflow_provider_capillary.exceptions import CapillaryJobFailedError
from airflow_provider_capillary.hooks.capillary import CapillaryHook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capillary._airflow_compat import Context, StartTriggerArgs
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind
    from airflow_provider_capillary.triggers.capillary import _UploadTrigger

_TIMES = ("poke_interval", "timeout", "max_wait")


class _UploadSensor(ResetOperatorOnCopy, BaseSensorOperator):
    """Base of the sensors that wait for an upload job of one kind."""

    _kind: ClassVar[UploadKind]
    #: Name of the trigger, in ``airflow_provider_capillary.triggers.capillary``.
    _trigger_name: ClassVar[str]

    template_fields: Sequence[str] = (
        "coupon_series_id",
        "job_id",
        "uploaded_file_name",
        "after_job_id",
        "max_error_count",
        "max_error_rate",
        "capillary_conn_id",
    )
    ui_color = "#e4f3e2"
    #: Whether polls go on in this process although the mode is reschedule.
    _keeps_slot = False
    #: Whether the wait defers instead of polling here.
    _defers = False
    #: What ended the wait in the triggerer, as long as it is not judged yet.
    _ended: WaitOutcome | None = None
    _stored_failures: StoredFailures | None = None
    _made_by_use = ("hook", "_wait", "_lookups", "_keeps_slot", "_defers", "_ended", "_stored_failures")
    shallow_copy_attrs: Sequence[str] = (*BaseSensorOperator.shallow_copy_attrs, *_made_by_use)

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        job_id: int | str | None = None,
        uploaded_file_name: str | None = None,
        after_job_id: int | str | None = None,
        max_error_count: int | str | None = None,
        max_error_rate: float | str | None = None,
        max_consecutive_failures: int = 10,
        capillary_conn_id: str = CapillaryHook.default_conn_name,
        deferrable: bool | None = None,
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        for name in _TIMES:
            if kwargs.get(name) is not None:
                # Airflow takes ints, floats and timedeltas, and an OverflowError of its own for infinity.
                kwargs[name] = read_seconds(name, kwargs[name], may_be_zero=True)
        super().__init__(**kwargs)
        validate_selector(job_id, uploaded_file_name, after_job_id)
        self.coupon_series_id = coupon_series_id
        self.job_id = job_id
        self.uploaded_file_name = uploaded_file_name
        self.after_job_id = after_job_id
        self.max_error_count = max_error_count
        self.max_error_rate = max_error_rate
        self.max_consecutive_failures = max_consecutive_failures
        self.capillary_conn_id = capillary_conn_id
        self._given = self._given_arguments()
        self.deferrable = (
            conf.getboolean("operators", "default_deferrable", fallback=False)
            if deferrable is None
            else read_flag("deferrable", deferrable)
        )
        self.start_from_trigger = read_flag("start_from_trigger", start_from_trigger)
        if self.start_from_trigger:
            if deferrable is not None and not self.deferrable:
                raise CapillaryConfigurationError(
                    "start_from_trigger waits in the triggerer, which deferrable=False forbids; leave out one of them"
                )
            self.deferrable = True
            # As with a mapped task, Airflow cannot start those from the triggerer: each would fail.
            self.start_from_trigger = not self._is_in_mapped_group()
        if self.start_from_trigger:
            self.start_trigger_args = self._arguments_to_start_with()

    @cached_property
    def hook(self) -> CapillaryHook:
        """The hook of the connection."""
        return CapillaryHook(self.capillary_conn_id)

    @property
    def reschedule(self) -> bool:
        """Whether the worker slot is given back until the next poll."""
        return bool(super().reschedule) and not (self._keeps_slot or self._defers or self._ended)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll once. A wait that defers polls in the triggerer only, where all waits share polls and request limit.

        :param context: Airflow's context.
        :return: False while the job runs; the job when it is done.
        :raises CapillaryJobFailedError: The job failed or has too many errors.
        :raises CapillaryError: Capillary cannot be asked, and trying again is of no use or no longer allowed.
        """
        began = time.time()
        outcome = self._ended or (self._check() if self._defers else self._poll(context))
        if outcome is not None:
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(outcome))
        if self._defers:
            # However short the timeout: at the deadline, the trigger makes a last poll.
            self._defer(began + self.timeout)
        return False

    def execute(self, context: Context) -> Any:
        """Wait for the job.

        :param context: Airflow's context.
        :return: The job, as the dictionary of ``UploadJob.to_dict()``.
        """
        if self.start_from_trigger:
            self.log.info("Airflow began this task on a worker all the same; it defers from here")
        self._defers = self.deferrable
        try:
            return self._poke_until_done(context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            # With soft_fail, Airflow skips at once; a skip for another reason has that as its cause.
            if error.__cause__ is None and not self._defers:
                from airflow_provider_capillary._metrics import count_wait

                count_wait("waits_ended", self.capillary_conn_id, self._kind, status="timeout")
            if isinstance(error, AirflowSkipException):
                raise
            raise AirflowSensorTimeout(self._wait.time_out(self.timeout).message) from None

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Go on where the trigger ended.

        :param context: Airflow's context.
        :param event: What the trigger fired.
        :return: The job, as the dictionary of ``UploadJob.to_dict()``.
        """
        try:
            self._ended = WaitOutcome.from_event(event)
        except CapillaryError as error:
            self._ended = WaitOutcome(status="error", message=str(error), error=error)
        if self._ended.status == "timeout":
            # As Airflow's own timeout of a sensor, which never_fail does not skip.
            raise (AirflowSkipException if self.soft_fail else AirflowSensorTimeout)(self._ended.message)
        # The trigger obeyed it already: what ended the wait all the same cannot be waited out here.
        self.silent_fail = False
        return self._poke_until_done(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral.

        :param next_method: Name of the method to go on with.
        :param next_kwargs: Its arguments.
        :param context: Airflow's context.
        """
        # What execute_complete raises is judged as in poke mode. Sensors would judge it once more, by other rules.
        if next_method == "execute_complete":
            return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
        return super().resume_execution(next_method, next_kwargs, context)

    def _poke_until_done(self, context: Context) -> Any:
        """Leave it to Airflow what an exception of a poll means for the task, in every mode."""
        # Unwrapped, because Airflow 2 takes a call of the wrapped one for that of an operator within another one.
        return inspect.unwrap(BaseSensorOperator.execute)(self, context)

    @cached_property
    def _wait(self) -> JobWaiter:
        return JobWaiter(self._options(), kind=self._kind, log=self.log, now=pendulum.now)

    def _checked_wait(self) -> JobWaiter:
        try:
            wait, _ = self._wait, self.hook
        except CapillaryConfigurationError:
            # An argument that can never work: with silent_fail, Airflow would poll with it until the timeout.
            self.silent_fail = False
            raise
        return wait

    def _check(self) -> WaitOutcome | None:
        """Check arguments and connection without a request. What fails counts as a failed poll."""
        wait = self._checked_wait()
        try:
            _ = self.hook.settings
        except CapillaryError as error:
            return wait.on_error(error)
        except AirflowNotFoundException:
            return wait.on_error(undefined_connection(self.capillary_conn_id))
        return None

    def _poll(self, context: Context) -> WaitOutcome | None:
        from airflow_provider_capillary._metrics import count_poll, count_wait

        wait = self._checked_wait()
        if wait.wait_log.times is None:
            end = time.time() + self.timeout
            wait.wait_log.times = WaitTimes(interval=self.poke_interval, backs_off=self.exponential_backoff, end=end)
            if self.mode == "reschedule":  # each poll is a process of its own
                self._stored_failures = StoredFailures(context, self.log)
                self._stored_failures.restore(wait, wait.wait_log.times, self.timeout)
            if wait.wait_log.is_new:
                count_wait("waits_started", self.capillary_conn_id, self._kind)
        before = wait.failures
        error: CapillaryError | None = None
        try:
            jobs = self._jobs(wait.options.series_id)
        except CapillaryError as raised:
            outcome = wait.on_error(error := raised)
        except AirflowNotFoundException:
            outcome = wait.on_error(error := undefined_connection(self.capillary_conn_id))
        else:
            outcome = wait.on_jobs(jobs)
        count_poll(self.capillary_conn_id, self._kind, error)
        if outcome is not None:
            count_wait("waits_ended", self.capillary_conn_id, self._kind, status=outcome.status)
        if self._stored_failures is not None:
            self._stored_failures.store(wait)
        if self._stored_failures is not None and not self._stored_failures.is_usable:
            # Before Airflow 3.3 nothing outlives a reschedule: each process would count its failed poll as the first.
            self._keeps_slot = wait.failures > 0 and not self.silent_fail
            if self._keeps_slot and not before and outcome is None:
                self.log.info("Keeping the worker slot until a poll succeeds, so that failed polls can be counted")
        return outcome

    @cached_property
    def _lookups(self) -> LookupTimes:
        return LookupTimes()

    def _jobs(self, series_id: int) -> list[UploadJob]:
        """Ask over the connection as it is now: a sensor in poke mode may live for days."""
        if self._lookups.due() <= time.monotonic():
            self._refresh()
        try:
            return self.hook._get_upload_jobs(self._kind, series_id)
        except CapillaryError:
            # The connection may have been corrected. Then only a poll over the new one counts.
            if not self._refresh():
                raise
            return self.hook._get_upload_jobs(self._kind, series_id)

    def _refresh(self) -> bool:
        self._lookups.begin(time.monotonic())
        return self.hook._refresh()

    def _conclude(self, outcome: WaitOutcome) -> dict[str, Any]:
        """Turn the end of a wait into the end of the task, the same way in every mode."""
        if outcome.status == "success" and outcome.job is not None:
            message = outcome.message[:1].upper() + outcome.message[1:]
            self.log.info("%s: %s rows, %s errors", message, outcome.job.total_uploaded_count, outcome.job.error_count)
            return outcome.job.to_dict()
        if outcome.status == "error":
            raise outcome.error or CapillaryError(outcome.message)
        raise CapillaryJobFailedError(outcome.message)

    def _defer(self, end_time: float) -> None:
        from airflow_provider_capillary.triggers import capillary as triggers

        trigger_class: type[_UploadTrigger] = getattr(triggers, self._trigger_name)
        self.defer(
            trigger=trigger_class(
                **self._wait.options.to_dict(),
                capillary_conn_id=self.capillary_conn_id,
                **self._trigger_times(),
                end_time=end_time,
                failures=self._wait.failures,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + BACKSTOP_SECONDS),
        )

    def _is_in_mapped_group(self) -> bool:
        group = getattr(self, "task_group", None)
        return group is not None and next(group.iter_mapped_task_groups(), None) is not None

    def _arguments_to_start_with(self) -> StartTriggerArgs:
        """Return what the scheduler makes the trigger of, without this code having run on a worker."""
        from airflow_provider_capillary._airflow_compat import StartTriggerArgs

        if not TRIGGERER_RENDERS_TEMPLATES:
            raise CapillaryConfigurationError(
                "start_from_trigger needs Airflow 3.3 or newer, whose triggerer renders templates; leave it out, and "
                "the task defers from a worker"
            )
        given = {**WaitOptions.of(self).to_dict(), "capillary_conn_id": self.capillary_conn_id}
        for name in [each for each in given if each in self.template_fields]:
            given[name] = stored_argument(name, given[name])
        execution_deadline = self.timeout + BACKSTOP_SECONDS
        if self.execution_timeout is not None:
            execution_deadline = min(execution_deadline, self.execution_timeout.total_seconds())
        return StartTriggerArgs(
            trigger_cls=f"airflow_provider_capillary.triggers.capillary.{self._trigger_name}",
            trigger_kwargs={**given, **self._trigger_times(), "execution_deadline": execution_deadline},
            next_method="execute_complete",
            timeout=timedelta(seconds=self.timeout + BACKSTOP_SECONDS),
        )

    def _trigger_times(self) -> dict[str, Any]:
        return {
            "poke_interval": self.poke_interval,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": None if self.max_wait is None else self.max_wait.total_seconds(),
            "timeout": self.timeout,
        }

    def _given_arguments(self) -> list[str]:
        """Return the templated arguments that were given, those that a mapping expands to None included."""
        mapped = self.dag.task_dict.get(self.task_id) if self.has_dag() else None  # type: ignore[no-untyped-call] # untyped in Airflow
        expanded = getattr(getattr(mapped, "expand_input", None), "value", None)
        names = expanded if isinstance(expanded, Mapping) else ()
        return [name for name in self.template_fields if getattr(self, name) is not None or name in names]

    def _options(self) -> WaitOptions:
        refuse_nothing({name: getattr(self, name) for name in self._given})
        return WaitOptions.of(self)


class CapillaryRedeemUploadSensor(_UploadSensor):
    """Wait until an upload job of redeemed coupons finishes.

    Without ``job_id``, ``uploaded_file_name`` and ``after_job_id``, wait for the newest job of the series, which is the
    one with the largest id. A job that does not exist yet is waited for.

    A job that failed, or has more errors than allowed, raises ``CapillaryJobFailedError``: the task fails without
    retry, or is skipped with ``soft_fail``. A transient error of Capillary or the network fails the task only
    after ``max_consecutive_failures`` failed polls in a row; wrong credentials fail it at once. All of this is the same
    in poke, reschedule and deferrable mode.

    :param coupon_series_id: The coupon series, number or text. (templated)
    :param job_id: Wait for exactly this job. (templated)
    :param uploaded_file_name: Wait for the newest job whose uploaded file has this name or fits this glob, such as
        ``redeemed_*_535512.csv``: Capillary stores uploads as ``{name}_{milliseconds}_{series}.csv``. (templated)
    :param after_job_id: Wait for the newest job with a larger id than this. (templated)
    :param max_error_count: Fail if the completed job has more refused rows than this whole number; None, the default,
        for no limit. (templated)
    :param max_error_rate: The same as a fraction of the uploaded rows, 0.0 to 1.0. (templated)
    :param max_consecutive_failures: Fail when so many polls in a row ended in a transient error, each after its own
        retries; a whole number, default 10.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``. (templated)
    :param deferrable: Wait in the triggerer, holding no worker slot; default: Airflow's
        ``[operators] default_deferrable``.
    :param start_from_trigger: Be deferrable, and do not begin on a worker either: the scheduler hands the wait to the
        triggerer; default False. Templates are rendered there, where the DAG's
        ``user_defined_macros`` are not known, and always as text. A mapped task, or one of a mapped task group, still
        begins on a worker, because Airflow cannot start those from the triggerer yet.
    :param kwargs: ``poke_interval`` (seconds between two polls, default 60), ``timeout`` (seconds in all),
        ``mode``, ``soft_fail`` and the other arguments of sensors.
    :return: XCom ``return_value``: the job, as the dictionary of ``UploadJob.to_dict()``.
    """

    _kind = REDEEM
    _trigger_name = "CapillaryRedeemUploadTrigger"


class CapillaryCouponUploadSensor(_UploadSensor):
    """Wait until an upload job of coupons finishes.

    Parameters, return value and behaviour are those of :class:`CapillaryRedeemUploadSensor`.
    """

    _kind = COUPON
    _trigger_name = "CapillaryCouponUploadTrigger"
