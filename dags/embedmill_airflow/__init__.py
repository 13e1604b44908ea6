"""What the four DAG files share: the operator, its params, alerts and launchers."""
