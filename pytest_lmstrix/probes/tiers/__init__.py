"""What `deep` shows besides its verdict: resisting rivals, and following one fact to another."""
