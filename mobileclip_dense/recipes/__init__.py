"""Full settings by name. The docstring of a recipe gives its command, its cost and the figure to expect.

Flags given after the recipe's name override it: `mobileclip-dense finetune mci0-segment --max-iters 300 ...`.
"""
