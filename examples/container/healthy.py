"""Whether the gateway of this container answers: exit code 0, otherwise 1 and what is wrong.

For the image's HEALTHCHECK, so that it needs no curl. http.client, since a proxy that the
environment names is for providers. Connecting to 0.0.0.0 reaches this machine.
"""

import http.client
import os
import sys

place = os.environ["UNBROKEN_HOST"], int(os.environ["UNBROKEN_PORT"])
gateway = http.client.HTTPConnection(*place, timeout=2)
gateway.request("GET", "/healthz")
sys.exit(gateway.getresponse().status != 200)
