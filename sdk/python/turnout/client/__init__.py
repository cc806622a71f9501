"""The async client of Turnout.

    async with Client() as client:
        read = await client.get("carrier-punctuality", {"carrier": "UA", "month": date(2013, 1, 1)}, unit="user-17")
        print(read.row, "from version", read.version)

Values come back as `turnout.results`, faults as `turnout.errors`.
"""

from turnout.addresses import DEFAULT_TARGET
from turnout.client.client import Client
from turnout.client.direct import Direct
from turnout.client.switcher import basis_points

__all__ = ["DEFAULT_TARGET", "Client", "Direct", "basis_points"]
