"""From raw text to a served language model of your own."""
