"""Live migration of containers that hold RDMA connections, on a stock Linux.

The package has two faces with opposite needs. The OCI runtime (``oci.py`` and the modules it names) runs on
every container start and imports next to nothing; the command line and the agent import what they like.
"""

__version__ = "0.1.0"
