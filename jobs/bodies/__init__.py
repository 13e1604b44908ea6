"""What each command answers with ``--json``: one frozen model a command, its fields in the order of the output.

The contract of other programs: fields may be added, never renamed or taken away. ``docs/schemas/`` is made from these
models. A field of type ``Absent`` is left out of the JSON where it is None; any other None is written as null. Times
are ISO 8601 in UTC, ``seconds`` are seconds, rows and chunks are counts. Imports nothing of embedmill.
"""

from __future__ import annotations

from jobs.bodies.answers import (
    ConfigBody,
    ErrorBody,
    GcBody,
    MigrateBody,
    PackageBody,
    ReportBody,
    RollbackBody,
    SearchBody,
    StateCopyBody,
    StatusBody,
    TakeoverBody,
    VerifyBody,
)
from jobs.bodies.base import Body
from jobs.bodies.doctor import DoctorBody
from jobs.bodies.evaluation import EvaluateBody
from jobs.bodies.explain import ExplainBody
from jobs.bodies.models import PromoteBody, TrainBody
from jobs.bodies.purge import PurgeBody
from jobs.bodies.run import PlanBody, ReindexBody, RunReport, StepBody

BODIES: dict[str, type[Body]] = {
    "plan": PlanBody,
    "run": RunReport,
    "step": StepBody,
    "search": SearchBody,
    "evaluate": EvaluateBody,
    "verify": VerifyBody,
    "reindex": ReindexBody,
    "rollback": RollbackBody,
    "takeover": TakeoverBody,
    "gc": GcBody,
    "train": TrainBody,
    "promote": PromoteBody,
    "config": ConfigBody,
    "vespa-package": PackageBody,
    "status": StatusBody,
    "explain": ExplainBody,
    "doctor": DoctorBody,
    "report": ReportBody,
    "purge": PurgeBody,
    "state-migrate": MigrateBody,
    "state-copy": StateCopyBody,
    "error": ErrorBody,
}  # by command, one of a group as GROUP-COMMAND; "error" is of any
