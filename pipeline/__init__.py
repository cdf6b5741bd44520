"""Train, generate and serve a language model that two style tokens make terse or verbose.

Importing this package loads neither torch nor transformers; only the folders ``model``, ``training``, ``generation``,
``engines`` and ``release`` need them.
"""
