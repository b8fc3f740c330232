import mobileclip_dense  # noqa: F401  # first: it turns off telemetry
