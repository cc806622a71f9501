"""One row of each order."""

from turnout import Key, Record, Row, map  # noqa: A004 - the standard term of the field


class Order(Record):
    order_id: int
    user_id: str
    amount_cents: int
    country: str
    ts: int


class Line(Row):
    order_id: Key[int]
    user_id: str
    amount_cents: int
    country: str
    ts: int


# An order is its user's, by whom the topic is partitioned; it is inserted once and never changes.
@map("append", topic="orders", keyed_by_partition=True, keep="first")
def line(order: Order) -> Line:
    return Line(order.order_id, order.user_id, order.amount_cents, order.country, order.ts)
