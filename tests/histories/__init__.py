"""What is done to a primary and its secondaries in any order, compared with a list.

``python -m tests.histories --start S --count N`` runs N histories of 50 steps from number S on.
"""
