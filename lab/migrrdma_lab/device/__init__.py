"""The software RDMA device of ``lab/device``: built, run by a daemon, shown in sysfs. Standard library only."""
