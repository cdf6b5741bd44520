"""The data layer, from files to tensors' rows: style <- source <- formats <- encoding <- store; check beside them."""
