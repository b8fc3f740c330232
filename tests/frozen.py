"""Imported last by servers of processes: what was imported before is not walked through when each process ends."""

import gc

gc.freeze()
