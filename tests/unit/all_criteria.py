"""Every criterion of the gate: the documented ones and the project's own, in the order of the pages."""

from acceptance.criteria import DOCUMENTED
from acceptance.test_coherence import COHERENCE
from acceptance.test_served_answers import SERVED_ANSWERS

CRITERIA = (*DOCUMENTED.values(), COHERENCE, SERVED_ANSWERS)
