"""The pages for people in a browser, and the forms to sign in and out."""
