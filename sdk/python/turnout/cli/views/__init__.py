"""Results of the client as text for a person. Pure: values in, rich renderables out."""
