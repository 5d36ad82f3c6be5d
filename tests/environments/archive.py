"""An archive of files. Attempts part where two calls come in the wrong order."""


class Archive:
    def reset(self, folder: str) -> str:
        self.folder, self.copied, self.deleted = folder, False, False
        return f"Please clear {folder}, but keep a copy."

    def copy_folder(self, folder: str) -> str:
        """Copy what is in a folder now.

        Args:
            folder: its name
        """
        self.copied = not self.deleted
        return "copied"

    def delete_folder(self, folder: str) -> str:
        """Delete a folder.

        Args:
            folder: its name
        """
        self.deleted = True
        return "deleted"

    def get_reward(self) -> float:
        return float(self.copied and self.deleted)
