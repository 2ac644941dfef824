"""config.json as data: read, validated, and the template of a new one."""

OCI_VERSION = "1.3.0"  # of the runtime specification that is implemented
