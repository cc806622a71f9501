"""The stack on one's own machine: real PostgreSQL and Kafka (`stack.LocalStack`), and `turnout dev`."""
