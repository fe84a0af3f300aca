"""Thin translations of the view for what each platform speaks. They decide nothing."""
