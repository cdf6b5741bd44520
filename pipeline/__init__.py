"""Train, generate and serve a language model that two style tokens make terse or verbose.

Importing this package loads neither torch nor transformers; the modules that need them say so by their names
(``model``, ``train``, ``generate``).
"""
