"""Container engines, each behind one class that translates its errors: Docker.

It uses wire, base, docker and requests.
"""
