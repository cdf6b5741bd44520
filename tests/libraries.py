"""Imports what is slow to import, and computes nothing: a process that has computed has threads, which a fork loses.

No module of the project's: pytest rewrites the assertions of those when it imports them itself.
"""

import bitsandbytes  # noqa: F401
import datasets  # noqa: F401
import matplotlib.backends.backend_svg  # noqa: F401
import mistral_common.tokens.tokenizers.tekken  # noqa: F401
import peft  # noqa: F401
import scipy.stats  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401
