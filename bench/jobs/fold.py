"""The running state of each user: orders so far, the last one, the biggest amount."""

from turnout import Key, Record, Row, fold


class Order(Record):
    order_id: int
    user_id: str
    amount_cents: int


class State(Row):
    user_id: Key[str]
    n: int
    last_order: int
    biggest: int


@fold("fold", topic="orders")
def state(before: State | None, order: Order) -> State:
    if before is None:
        return State(order.user_id, 1, order.order_id, order.amount_cents)
    return State(order.user_id, before.n + 1, order.order_id, max(before.biggest, order.amount_cents))
