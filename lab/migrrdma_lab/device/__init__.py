"""The software RDMA device of ``lab/device``: built, run by a daemon, shown in a host's sysfs. Standard library only."""
