OCI_VERSION = "1.3.0"  # of the runtime specification that is implemented
