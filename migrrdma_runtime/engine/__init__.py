"""Container engines, each behind one class that translates its errors: Docker.

It uses base, docker and requests.
"""
