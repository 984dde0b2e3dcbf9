"""What ``migrrdma install`` puts on a host and ``migrrdma uninstall`` takes away again.

``plan.py`` says which changes, ``change.py`` how one is made, ``record.py`` remembers them between the two.
"""
