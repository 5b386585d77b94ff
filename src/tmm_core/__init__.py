"""The Traffic Management Mechanism of SECMP0067, for gateways to embed.

A Service Request is throttled only if it is not on the priority list, its Service User is over its
allocation, the Mechanism is active, and there is no spare capacity left for that User; every other
Service Request is admitted.
"""
