"""Orders and their amount, user by user."""

from turnout import Key, Record, Row, Sum, aggregate


class Order(Record):
    user_id: str
    amount_cents: int


class Total(Row):
    user_id: Key[str]
    n: Sum[int]
    amount: Sum[int]


@aggregate("aggregate", topic="orders")
def total(order: Order) -> Total:
    return Total(order.user_id, 1, order.amount_cents)
