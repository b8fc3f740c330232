"""Strong dense vision for phones. Importing it turns off what libraries report about their user."""

import os

# Read by each library when it is imported, so this stands before all of them: the packages beside this one (apps,
# benchmarks, export, tests) import it first, and worker processes inherit it. What the user has set stays.
NO_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime: device id and a queue of events in the user's cache folder
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: a report of each cluster
    "HF_HUB_DISABLE_TELEMETRY": "1",  # Hugging Face: versions of other libraries beside each download
}
for _name, _value in NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)
