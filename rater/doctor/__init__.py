"""`rater doctor`: finds what is wrong with a rater and its Kafka, and says what to do about it.

There is one module per area. In each, `check` collects the facts and `judge_…` turns them into findings. `check` asks Kafka
only through `cluster_reader.ClusterReader`, which changes nothing there; the `judge_…` functions are pure. Findings about the
catalog say only what follows from the rating rules, and name the rule.
"""

from rater.doctor.examine import AREAS, examine
from rater.doctor.findings import DoctorFinding, Severity

__all__ = ["AREAS", "DoctorFinding", "Severity", "examine"]
