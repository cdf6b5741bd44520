"""What we promise of the model that reads orders: its answers are JSON, and their fields are right."""

from harness.criteria import Bound, Criterion
from harness.criteria_set import CriteriaSet

CRITERIA = CriteriaSet(
    "json-extraction",
    (
        Criterion(
            "answers.valid_json",
            "Answers are JSON objects with our fields",
            (Bound("order_count", ">=", 60, "orders"), Bound("valid_share", ">=", 0.95, confidence=0.95)),
            "the importer stops at an answer that it cannot read",
        ),
        Criterion(
            "answers.field_accuracy",
            "Fields hold what the order says",
            (Bound("right_field_share", ">=", 0.9, confidence=0.95), Bound("wrong_total_count", "==", 0, "orders")),
            "agreed with the warehouse; a wrong total is paid by us",
        ),
    ),
)
