"""Recipes: named, complete settings of a command. Each docstring gives the command, its cost and the expected figure.

Flags override a recipe: `mobileclip-dense finetune mci0-segment --max-iters 300 ...`.
"""
