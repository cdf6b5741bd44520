"""What makes a trained model releasable: its fingerprint, its verdict, its export."""
