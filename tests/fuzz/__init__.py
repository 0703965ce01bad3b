"""Fuzzing of the codec and of the sessions on it: what must hold whatever a peer sends.

``targets``   those of `zrs_core.testing.targets`, and one for a session
``inputs``    makes inputs from a random number generator: streams, damaged at the level of messages
``corpus``    the seeds of `zrs_core.testing.seeds`, and those for a session in ``corpus/``
``guided``    the targets under libFuzzer, by Atheris: ``make fuzz``

``python -m tests.fuzz --start S --count N`` runs N cases from number S on; a number is a case.
"""
