"""`rater doctor`: what is wrong with a rater and the Kafka it stands on, and what to do about it.

One module an area. Each asks (`look`) and judges (`judge_…`), apart from each other: what is asked of Kafka goes through
`asking.Cluster`, which changes nothing there; judgements are pure, from what was seen to findings. Catalog judgements say only
what follows from the rating rules, and name the rule.
"""

from rater.doctor.examine import AREAS, examine
from rater.doctor.findings import DoctorFinding, Severity

__all__ = ["AREAS", "DoctorFinding", "Severity", "examine"]
