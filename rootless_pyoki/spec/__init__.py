"""config.json as data: read, validated, and the template of a new one."""

OLDEST_OCI_VERSION = "1.0.0"  # of the runtime specification that is accepted
OCI_VERSION = "1.3.0"  # of the runtime specification that is implemented
