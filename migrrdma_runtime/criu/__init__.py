"""What CRIU is told before it starts and what is read of it afterwards: configuration, plugins, log, figures, images.

It uses base.
"""
