"""Fuzzing of the codec and of the sessions on it: what must hold whatever a peer sends.

``targets``   a function for each way in: it takes any bytes and raises if something does not hold
``inputs``    makes inputs from a random number generator: streams, damaged at the level of messages
``corpus``    inputs that reach each branch, kept in ``corpus/``
``guided``    the targets under libFuzzer, by Atheris: ``make fuzz``

``python -m tests.fuzz --start S --count N`` runs N cases from number S on; a number is a case.
"""
