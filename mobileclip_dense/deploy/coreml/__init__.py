"""Core ML: conversion, compression, and a check of saved programs that needs no Mac."""

import logging

# This package is imported before coremltools, which warns at import that its Mac libraries are missing and that it was
# not tested with this version of torch. The exports are verified instead. Its errors are still shown.
logging.getLogger("coremltools").setLevel(logging.ERROR)
